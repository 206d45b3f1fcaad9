//! Typed values for systemd's properties, and their text form (GVariant text format) in which annotations write them.
//! Pure: how a value travels over D-Bus is `cgroup/dbus.rs`.

/// A D-Bus value. An array names the type of its elements, since it may have none.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Bool(bool),
    Byte(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    Double(f64),
    Text(String),
    ObjectPath(String),
    Signature(String),
    Array(String, Vec<Value>),
    Struct(Vec<Value>),
    /// A value that carries its own type.
    Variant(Box<Value>),
}

/// The words of the text format for types, with their signature letters.
const TYPES: [(&str, &str); 12] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

/// Arrays in arrays, at most.
const DEPTH: usize = 8;

impl Value {
    pub fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    pub fn texts(list: &[&str]) -> Self {
        Self::Array("s".to_owned(), list.iter().map(|text| Self::text(text)).collect())
    }

    pub fn signature(&self) -> String {
        let letter = match self {
            Self::Bool(_) => "b",
            Self::Byte(_) => "y",
            Self::I16(_) => "n",
            Self::U16(_) => "q",
            Self::I32(_) => "i",
            Self::U32(_) => "u",
            Self::I64(_) => "x",
            Self::U64(_) => "t",
            Self::Double(_) => "d",
            Self::Text(_) => "s",
            Self::ObjectPath(_) => "o",
            Self::Signature(_) => "g",
            Self::Variant(_) => "v",
            Self::Array(element, _) => return format!("a{element}"),
            Self::Struct(fields) => {
                return format!("({})", fields.iter().map(Self::signature).collect::<String>());
            }
        };
        letter.to_owned()
    }

    /// Reads the text form: numbers, strings, booleans and arrays of them, with `uint64 5` or `@as []` for the type.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text };
        let value = reader.value(None, 0)?;
        reader.skip_space();
        if reader.rest.is_empty() { Ok(value) } else { Err(format!("{:?} is left over", reader.rest)) }
    }

    /// A number of seconds as microseconds.
    pub fn seconds_to_microseconds(&self) -> Option<Self> {
        let seconds = match *self {
            Self::Byte(n) => n.into(),
            Self::I16(n) => u64::try_from(n).ok()?,
            Self::U16(n) => n.into(),
            Self::I32(n) => u64::try_from(n).ok()?,
            Self::U32(n) => n.into(),
            Self::I64(n) => u64::try_from(n).ok()?,
            Self::U64(n) => n,
            Self::Double(n) if n >= 0.0 => return Some(Self::U64((n * 1e6) as u64)),
            _ => return None,
        };
        seconds.checked_mul(1_000_000).map(Self::U64)
    }
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn eat(&mut self, token: char) -> bool {
        self.skip_space();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// The letters, digits and signs that come next.
    fn word(&mut self) -> &'a str {
        let part = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
        let end = self.rest.find(|c| !part(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// One value; `want` is the signature that its place or a word before it demands.
    fn value(&mut self, want: Option<&str>, depth: usize) -> Result<Value, String> {
        if depth > DEPTH {
            return Err("too many arrays in arrays".to_owned());
        }
        self.skip_space();
        if self.eat('@') {
            let end = self.rest.find(char::is_whitespace).ok_or("nothing follows the type")?;
            let (signature, rest) = self.rest.split_at(end);
            self.rest = rest;
            let element = signature.trim_start_matches('a');
            if !TYPES.iter().any(|(_, letter)| *letter == element) {
                return Err(format!("type {signature:?} is none of a single value or an array"));
            }
            return self.value(Some(signature), depth + 1);
        }
        match self.rest.chars().next() {
            None => Err("a value is missing".to_owned()),
            Some('[') => self.array(want, depth),
            Some(quote @ ('\'' | '"')) => {
                let text = self.quoted(quote)?;
                match want {
                    None | Some("s") => Ok(Value::Text(text)),
                    Some("o") => Ok(Value::ObjectPath(text)),
                    Some("g") => Ok(Value::Signature(text)),
                    Some(want) => Err(format!("{text:?} is not of type {want}")),
                }
            }
            Some(_) => {
                let word = self.word();
                if let Some((_, letter)) = TYPES.iter().find(|(name, _)| *name == word) {
                    return self.value(Some(letter), depth + 1);
                }
                scalar(word, want)
            }
        }
    }

    fn array(&mut self, want: Option<&str>, depth: usize) -> Result<Value, String> {
        let mut element = match want {
            None => None,
            Some(want) => Some(want.strip_prefix('a').ok_or("an array where none is wanted")?.to_owned()),
        };
        self.eat('[');
        let mut list = Vec::new();
        while !self.eat(']') {
            if !list.is_empty() && !self.eat(',') {
                return Err("a comma or ] is missing".to_owned());
            }
            let value = self.value(element.as_deref(), depth + 1)?;
            if *element.get_or_insert_with(|| value.signature()) != value.signature() {
                return Err("the elements differ in type".to_owned());
            }
            list.push(value);
        }
        Ok(Value::Array(element.ok_or("an empty array needs its type, such as @as []")?, list))
    }

    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            if c == quote {
                self.rest = &self.rest[at + 1..];
                return Ok(text);
            }
            text.push(match c {
                '\\' => match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, 't')) => '\t',
                    Some((_, c @ ('\\' | '\'' | '"'))) => c,
                    _ => return Err("unknown escape in a string".to_owned()),
                },
                c => c,
            });
        }
        Err("a string does not end".to_owned())
    }
}

/// A word that is a number or a truth; a number without a type is an int32, or a double with its point.
fn scalar(word: &str, want: Option<&str>) -> Result<Value, String> {
    let wrong = || format!("{word:?} is no value of type {}", want.unwrap_or("int32, double or boolean"));
    if let ("true" | "false", None | Some("b")) = (word, want) {
        return Ok(Value::Bool(word == "true"));
    }
    let (negative, digits) = match word.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let whole = || {
        let magnitude = match digits.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16),
            None => digits.parse::<i128>(),
        };
        magnitude.map(|n| if negative { -n } else { n }).map_err(|_| wrong())
    };
    let value = match want {
        Some("d") => word.parse().ok().map(Value::Double),
        None if word.contains('.') => word.parse().ok().map(Value::Double),
        Some("y") => u8::try_from(whole()?).ok().map(Value::Byte),
        Some("n") => i16::try_from(whole()?).ok().map(Value::I16),
        Some("q") => u16::try_from(whole()?).ok().map(Value::U16),
        None | Some("i") => i32::try_from(whole()?).ok().map(Value::I32),
        Some("u") => u32::try_from(whole()?).ok().map(Value::U32),
        Some("x") => i64::try_from(whole()?).ok().map(Value::I64),
        Some("t") => u64::try_from(whole()?).ok().map(Value::U64),
        Some(_) => None,
    };
    value.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_is_read() {
        let byte = |n| Value::Byte(n);
        for (text, want) in [
            ("true", Value::Bool(true)),
            ("123", Value::I32(123)),
            ("-5", Value::I32(-5)),
            ("1.5", Value::Double(1.5)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("@t 7", Value::U64(7)),
            ("byte 0xff", Value::Byte(255)),
            ("'inactive-or-failed'", Value::text("inactive-or-failed")),
            (r#""a\"b""#, Value::text("a\"b")),
            ("['a', \"b\"]", Value::texts(&["a", "b"])),
            ("@as []", Value::texts(&[])),
            ("[byte 1, 2]", Value::Array("y".into(), vec![byte(1), byte(2)])),
            ("  objectpath '/a' ", Value::ObjectPath("/a".into())),
        ] {
            assert_eq!(Value::parse(text), Ok(want), "{text}");
        }
        assert_eq!(Value::parse("@aas [['a']]").unwrap().signature(), "aas");
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let deep = "[".repeat(5000);
        let bad = [
            "",
            "x",
            "1 2",
            "'a",
            "[]",
            "[1, 'a']",
            "uint64 -1",
            "byte 256",
            "@(ss) 1",
            "@as 1",
            "[1",
            &deep,
        ];
        for text in bad {
            assert!(Value::parse(text).is_err(), "{text}");
        }
    }
}
