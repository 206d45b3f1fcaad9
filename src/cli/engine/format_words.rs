//! The functions of `--format`, as Go's text/template and Docker name them. An error is a sentence without a subject.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::format::{text, truth};

type Answer = std::result::Result<Value, String>;

/// Calls a function of a template.
pub(super) fn call(name: &str, arguments: &[Value]) -> Answer {
    let one = || arguments.first().ok_or_else(|| format!("{name} needs an argument"));
    let two = || match arguments {
        [a, b] => Ok((a, b)),
        _ => Err(format!("{name} needs two arguments")),
    };
    let word = || one().map(text);
    Ok(match name {
        "json" => json!(one()?.to_string()),
        "lower" => json!(word()?.to_lowercase()),
        "upper" => json!(word()?.to_uppercase()),
        "title" => json!(title(&word()?)),
        "trim" => json!(word()?.trim()),
        "len" => json!(length(one()?)?),
        "join" => join(two()?)?,
        "split" => {
            let (subject, separator) = two()?;
            json!(text(subject).split(&text(separator)).collect::<Vec<_>>())
        }
        "truncate" => {
            let (subject, length) = two()?;
            json!(text(subject).chars().take(number(length)?).collect::<String>())
        }
        "print" => json!(arguments.iter().map(text).collect::<String>()),
        "println" => json!(arguments.iter().map(text).collect::<Vec<_>>().join(" ") + "\n"),
        "printf" => json!(printf(&word()?, &arguments[1..])?),
        "index" => arguments.iter().skip(1).try_fold(one()?.clone(), |value, key| index(&value, key))?,
        "slice" => slice(one()?, &arguments[1..])?,
        "not" => json!(!truth(one()?)),
        "and" => arguments
            .iter()
            .find(|value| !truth(value))
            .or(arguments.last())
            .ok_or("and needs an argument")?
            .clone(),
        "or" => arguments
            .iter()
            .find(|value| truth(value))
            .or(arguments.last())
            .ok_or("or needs an argument")?
            .clone(),
        "eq" => json!(arguments.iter().skip(1).any(|value| same(&arguments[0], value))),
        "ne" => two().map(|(a, b)| json!(!same(a, b)))?,
        "lt" => two().map(|(a, b)| json!(order(a, b) == Ordering::Less))?,
        "le" => two().map(|(a, b)| json!(order(a, b) != Ordering::Greater))?,
        "gt" => two().map(|(a, b)| json!(order(a, b) == Ordering::Greater))?,
        "ge" => two().map(|(a, b)| json!(order(a, b) != Ordering::Less))?,
        _ => return Err(format!("there is no function {name}")),
    })
}

fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

fn length(value: &Value) -> std::result::Result<usize, String> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(items) => Ok(items.len()),
        Value::Object(map) => Ok(map.len()),
        Value::Null => Ok(0),
        other => Err(format!("{other} has no length")),
    }
}

fn number(value: &Value) -> std::result::Result<usize, String> {
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("{} is no number", text(value)))
}

fn join((list, separator): (&Value, &Value)) -> Answer {
    // `{{.List | join ","}}` hands the list on as the last argument.
    let (list, separator) = if separator.is_array() { (separator, list) } else { (list, separator) };
    match list {
        Value::Array(items) => Ok(json!(items.iter().map(text).collect::<Vec<_>>().join(&text(separator)))),
        Value::Null => Ok(json!("")),
        other => Err(format!("{} is no list", text(other))),
    }
}

fn index(value: &Value, key: &Value) -> Answer {
    match value {
        Value::Array(items) => {
            let at = number(key)?;
            items.get(at).cloned().ok_or_else(|| format!("index {at} of a list of {}", items.len()))
        }
        Value::Object(map) => Ok(map.get(&text(key)).cloned().unwrap_or(Value::Null)),
        Value::Null => Ok(Value::Null),
        other => Err(format!("{} has no index", text(other))),
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Answer {
    let bound = |at: usize, otherwise| bounds.get(at).map_or(Ok(otherwise), number);
    let outside = || "slice bounds out of range".to_owned();
    match value {
        Value::String(text) => {
            let (from, to) = (bound(0, 0)?, bound(1, text.len())?);
            text.get(from..to).map(|part| json!(part)).ok_or_else(outside)
        }
        Value::Array(items) => {
            let (from, to) = (bound(0, 0)?, bound(1, items.len())?);
            items.get(from..to).map(|part| json!(part)).ok_or_else(outside)
        }
        other => Err(format!("{} cannot be sliced", text(other))),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn order(a: &Value, b: &Value) -> Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        _ => text(a).cmp(&text(b)),
    }
}

/// `%s %d %v %q %%`, and a width: `%-20s`.
fn printf(format: &str, arguments: &[Value]) -> std::result::Result<String, String> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut rest = format;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let spec = &rest[at + 1..];
        let end =
            spec.find(|c: char| !(c.is_ascii_digit() || "-+.".contains(c))).ok_or("printf ends in %")?;
        let verb = spec[end..].chars().next().unwrap_or('%');
        rest = &spec[end + verb.len_utf8()..];
        if verb == '%' {
            out.push('%');
            continue;
        }
        let value = arguments.next().ok_or("printf has too few arguments")?;
        let shown = match verb {
            's' | 'd' | 'v' | 't' | 'f' => text(value),
            'q' => json!(text(value)).to_string(),
            other => return Err(format!("printf knows no %{other}")),
        };
        let width = spec[..end].trim_matches(['-', '+']).split('.').next().unwrap_or_default();
        let width: usize = width.parse().unwrap_or(0).min(4096);
        if spec.starts_with('-') {
            out.push_str(&format!("{shown:<width$}"));
        } else {
            out.push_str(&format!("{shown:>width$}"));
        }
    }
    Ok(out + rest)
}

/// Docker's `{{.Label "key"}}`: the value, or nothing. The labels of a row are one string, with commas.
pub(super) fn label(row: &Value, arguments: &[Value]) -> Value {
    let [Value::String(key)] = arguments else { return Value::Null };
    let labels = row["Labels"].as_str().unwrap_or("").split(',');
    let mut found = labels.filter_map(|label| label.split_once('=')).filter(|(name, _)| name == key);
    found.next().map_or("", |(_, value)| value).into()
}
