//! `WWW-Authenticate`: what a registry asks for (RFC 9110, section 11.6.1). PURE: text in, challenges out.

/// The longest header that is read, in bytes, and the most challenges in it.
const LONGEST: usize = 16 << 10;
const MOST: usize = 16;

/// One challenge: a scheme in lower case and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(its, _)| its == name).map(|(_, value)| value.as_str())
    }
}

/// The challenges of one header. What cannot be read is passed over: then there is nothing to answer.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut rest = header.get(..LONGEST.min(header.len())).unwrap_or_default();
    let mut found: Vec<Challenge> = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word = token(rest);
        if word.is_empty() || found.len() > MOST {
            return found;
        }
        rest = &rest[word.len()..];
        let after = rest.trim_start_matches([' ', '\t']);
        let Some(value) = after.strip_prefix('=') else {
            found.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
            continue;
        };
        let (value, tail) = quoted(value.trim_start_matches([' ', '\t']));
        rest = tail;
        if let Some(last) = found.last_mut() {
            last.parameters.push((word.to_ascii_lowercase(), value));
        }
    }
}

/// The token that a text begins with (RFC 9110, section 5.6.2).
fn token(text: &str) -> &str {
    let part = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/:".contains(&b);
    &text[..text.bytes().take_while(|b| part(*b)).count()]
}

/// A value, quoted or not, and what follows it.
fn quoted(text: &str) -> (String, &str) {
    let Some(inner) = text.strip_prefix('"') else {
        let word = token(text);
        // token68's padding belongs to no token: without this the reader would stand still at it.
        return (word.to_owned(), text[word.len()..].trim_start_matches('='));
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in inner.char_indices() {
        match c {
            c if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &inner[at + 1..]),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_say() {
        let hub =
            r#"Bearer realm="https://auth.docker.io/token",service="s",scope="repository:a/b:pull,push""#;
        let found = parse(hub);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].scheme, "bearer");
        assert_eq!(found[0].get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(found[0].get("scope"), Some("repository:a/b:pull,push"));
        let two = parse(
            r#"Negotiate abc==, basic Realm = "a \"b\", c" , BEARER realm=x , error="insufficient_scope""#,
        );
        let basic = two.iter().find(|c| c.scheme == "basic").expect("basic");
        assert_eq!(basic.get("realm"), Some(r#"a "b", c"#));
        let bearer = two.iter().find(|c| c.scheme == "bearer").expect("bearer");
        assert_eq!((bearer.get("realm"), bearer.get("error")), (Some("x"), Some("insufficient_scope")));
    }

    /// Whatever the bytes: it ends, and no more comes out than went in.
    #[test]
    fn any_text_ends() {
        let alphabet = [" ", ",", "=", "\"", "\\", "Bearer", "realm", "ä", "\t", "(", "https://h/", "=="];
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                text.push_str(alphabet[(seed % alphabet.len() as u64) as usize]);
            }
            let found = parse(&text);
            let size: usize =
                found.iter().flat_map(|c| &c.parameters).map(|(name, value)| name.len() + value.len()).sum();
            assert!(size <= text.len(), "{text:?}: {found:?}");
        }
        assert!(parse(&"a ".repeat(100_000)).len() <= MOST + 1);
    }
}
