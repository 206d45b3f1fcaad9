//! The regular expressions that people write in `--filter name=`: characters, `.`, `[sets]`, `* + ?`, `^ $` and `|`
//! between whole alternatives. No groups: `Pattern::parse` says so.

use crate::error::{Error, Result};

/// The longest expression: each character of a text may cost as many steps.
const LONGEST: usize = 200;

#[derive(Debug)]
pub struct Pattern(Vec<Alternative>);

#[derive(Debug)]
struct Alternative {
    begins: bool,
    ends: bool,
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    atom: Atom,
    least: usize,
    most: usize,
}

#[derive(Debug)]
enum Atom {
    Any,
    One(char),
    Set { ranges: Vec<(char, char)>, inverted: bool },
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(format!("--filter: {text:?} is no pattern"))
                .next("use characters and . [] * + ? ^ $ |")
        };
        if text.len() > LONGEST {
            return Err(wrong());
        }
        text.split('|')
            .map(|text| Alternative::parse(text).ok_or_else(wrong))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Whether it is found anywhere in the text.
    pub fn finds(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        self.0.iter().any(|alternative| {
            let starts = if alternative.begins { 0..=0 } else { 0..=text.len() };
            starts.into_iter().any(|at| alternative.matches(&text[at..]))
        })
    }
}

impl Alternative {
    fn parse(text: &str) -> Option<Self> {
        let (begins, text) = text.strip_prefix('^').map_or((false, text), |rest| (true, rest));
        let ends = text.ends_with('$') && !text.ends_with("\\$");
        let mut chars = text[..text.len() - usize::from(ends)].chars();
        let mut pieces: Vec<Piece> = Vec::new();
        while let Some(c) = chars.next() {
            let atom = match c {
                '.' => Atom::Any,
                '[' => set(&mut chars)?,
                '\\' => Atom::One(chars.next()?),
                '*' | '+' | '?' => {
                    let last = pieces.last_mut().filter(|last| (last.least, last.most) == (1, 1))?;
                    last.least = usize::from(c == '+');
                    last.most = if c == '?' { 1 } else { usize::MAX };
                    continue;
                }
                '(' | ')' | '{' | '}' | '^' | '$' => return None,
                c => Atom::One(c),
            };
            pieces.push(Piece { atom, least: 1, most: 1 });
        }
        Some(Self { begins, ends, pieces })
    }

    /// All places where it can be after each piece: no going back, so no text takes long.
    fn matches(&self, text: &[char]) -> bool {
        let mut places = vec![0];
        for piece in &self.pieces {
            let mut next = Vec::new();
            for from in places {
                let run = text[from..].iter().take(piece.most).take_while(|c| piece.atom.is(**c)).count();
                next.extend((piece.least..=run).map(|n| from + n));
            }
            next.sort_unstable();
            next.dedup();
            places = next;
        }
        if self.ends { places.contains(&text.len()) } else { !places.is_empty() }
    }
}

/// What stands between brackets, the first one apart.
fn set(chars: &mut std::str::Chars<'_>) -> Option<Atom> {
    let mut inside = Vec::new();
    loop {
        match chars.next()? {
            ']' if !inside.is_empty() => break,
            c => inside.push(c),
        }
    }
    let inverted = inside[0] == '^' && inside.len() > 1;
    let mut rest = &inside[usize::from(inverted)..];
    let mut ranges = Vec::new();
    while let Some((first, more)) = rest.split_first() {
        let (last, behind) = match more {
            ['-', last, behind @ ..] => (last, behind),
            _ => (first, more),
        };
        ranges.push((*first, *last));
        rest = behind;
    }
    Some(Atom::Set { ranges, inverted })
}

impl Atom {
    fn is(&self, c: char) -> bool {
        match self {
            Atom::Any => true,
            Atom::One(one) => *one == c,
            Atom::Set { ranges, inverted } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != *inverted
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_found() {
        for (pattern, text, found) in [
            ("b", "abc", true),
            ("^b", "abc", false),
            ("^abc$", "abc", true),
            ("^ab$", "abc", false),
            ("a.c", "xabcx", true),
            ("w[0-9]+$", "w12", true),
            ("w[0-9]+$", "w", false),
            ("^w[^a-c]?$", "wd", true),
            ("^w[^a-c]?$", "wb", false),
            ("x|^y", "ay", false),
            ("x|y$", "ay", true),
            ("a\\.b", "axb", false),
            ("", "a", true),
            ("^a*b$", "aaab", true),
            ("^[a-]$", "-", true),
        ] {
            assert_eq!(Pattern::parse(pattern).unwrap().finds(text), found, "{pattern} in {text}");
        }
        for bad in ["(a)", "a{2}", "*", "[a", "a**", "a\\"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
    }
}
