//! The plan as text.
pub fn show(_plan: &super::Plan) -> String {
    String::new()
}
