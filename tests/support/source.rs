//! Rust source as `tests/tidy.rs` reads it: comments and literals told from code, the paths that the code names, the
//! lengths of functions. Letters only: no macro is expanded, no type is known. That is enough for rules about names.

use std::collections::HashMap;

/// The code alone: comments and what literals hold become blanks, of which lines keep their number and width.
pub fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => line_end(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => block_end(&chars, at),
            '"' => string_end(&chars, at),
            'r' if !follows_word(&chars, at) => raw_end(&chars, at).unwrap_or(at),
            '\'' => char_end(&chars, at).unwrap_or(at),
            _ => at,
        };
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn follows_word(chars: &[char], at: usize) -> bool {
    // The prefixes of b"" and c"" are words of one letter.
    at > 0
        && is_word(chars[at - 1])
        && !(matches!(chars[at - 1], 'b' | 'c') && (at < 2 || !is_word(chars[at - 2])))
}

fn line_end(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |n| at + n)
}

fn block_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 1),
            ('*', '/') if depth == 1 => return at + 2,
            ('*', '/') => (depth, at) = (depth - 1, at + 1),
            _ => {}
        }
        at += 1;
    }
    chars.len()
}

fn string_end(chars: &[char], at: usize) -> usize {
    let mut i = at + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// r"…" and r#"…"#; `None` for a name that begins with r.
fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    let open = at + 1 + hashes;
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let marks = |i: usize| chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count();
    let closes = |i: &usize| chars[*i] == '"' && marks(*i) == hashes;
    (open + 1..chars.len()).find(closes).map(|i| i + 1 + hashes)
}

/// 'x' and '\n'; `None` for a lifetime.
fn char_end(chars: &[char], at: usize) -> Option<usize> {
    if chars.get(at + 1) == Some(&'\\') {
        return chars[at + 3..].iter().position(|c| *c == '\'').map(|n| at + 4 + n);
    }
    (chars.get(at + 2) == Some(&'\'')).then_some(at + 3)
}

/// Every path the code names (`a::b::c`), with its line. An imported name is written out, as its `use` has it.
pub fn paths(code: &str) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let (mut found, mut imported) = (Vec::new(), HashMap::new());
    let mut at = 0;
    while at < tokens.len() {
        if tokens[at].1 == "use" {
            let end = at + tokens[at..].iter().position(|t| t.1 == ";").unwrap_or(tokens.len() - at);
            imports(&tokens[at + 1..end], "", &mut found, &mut imported);
            at = end;
        } else if tokens[at].1.starts_with(is_word) && (at == 0 || tokens[at - 1].1 != "::") {
            let (line, mut path) = tokens[at].clone();
            while tokens.get(at + 1).is_some_and(|t| t.1 == "::")
                && tokens.get(at + 2).is_some_and(|t| t.1.starts_with(is_word))
            {
                path = format!("{path}::{}", tokens[at + 2].1);
                at += 2;
            }
            found.push((line, path));
        }
        at += 1;
    }
    for (_, path) in &mut found {
        let (first, rest) =
            path.split_once("::").map_or((path.as_str(), None), |(first, rest)| (first, Some(rest)));
        if let Some(whole) = imported.get(first) {
            *path = rest.map_or_else(|| whole.clone(), |rest| format!("{whole}::{rest}"));
        }
    }
    found.retain(|(_, path)| path.contains("::"));
    found
}

/// Words, `::`, and single signs.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = match first {
                c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                _ if rest.starts_with("::") => 2,
                c => c.len_utf8(),
            };
            tokens.push((number + 1, rest[..length].to_owned()));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// The leaves of one `use` tree: each is a path found, and the name it has here from then on.
fn imports(
    tokens: &[(usize, String)],
    prefix: &str,
    found: &mut Vec<(usize, String)>,
    names: &mut HashMap<String, String>,
) {
    let mut path = prefix.to_owned();
    for (i, (line, token)) in tokens.iter().enumerate() {
        match token.as_str() {
            "::" => path += "::",
            "{" => return branches(&tokens[i + 1..], &path, found, names),
            "as" => {
                names.insert(tokens[i + 1].1.clone(), path.clone());
                return;
            }
            word => {
                // `a::{self}` is `a`.
                path = if word == "self" && path.ends_with("::") {
                    path.trim_end_matches("::").to_owned()
                } else {
                    path + word
                };
                if tokens.get(i + 1).is_none_or(|t| t.1 != "::") {
                    found.push((*line, path.clone()));
                    let name = path.rsplit("::").next().unwrap_or(&path).to_owned();
                    if name != "*" && tokens.get(i + 1).is_none_or(|t| t.1 != "as") {
                        names.insert(name, path.clone());
                    }
                }
            }
        }
    }
}

fn branches(
    tokens: &[(usize, String)],
    prefix: &str,
    found: &mut Vec<(usize, String)>,
    names: &mut HashMap<String, String>,
) {
    let (mut depth, mut from) = (0, 0);
    for (i, (_, token)) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => depth += 1,
            "}" if depth > 0 => depth -= 1,
            "," | "}" if depth == 0 => {
                imports(&tokens[from..i], prefix, found, names);
                from = i + 1;
            }
            _ => {}
        }
    }
}

/// First line, name and length in lines of every function that has a body.
pub fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    for (i, (line, token)) in tokens.iter().enumerate() {
        if token != "fn" || !tokens.get(i + 1).is_some_and(|t| t.1.starts_with(is_word)) {
            continue;
        }
        // `;` inside brackets is the length of an array type, not the end of a signature.
        let mut brackets = 0;
        let mut braces = 0;
        for (end, token) in &tokens[i..] {
            match token.as_str() {
                "[" | "(" => brackets += 1,
                "]" | ")" => brackets -= 1,
                ";" if brackets == 0 && braces == 0 => break,
                "{" => braces += 1,
                "}" if braces == 1 => {
                    found.push((*line, tokens[i + 1].1.clone(), end - line + 1));
                    break;
                }
                "}" => braces -= 1,
                _ => {}
            }
        }
    }
    found
}
