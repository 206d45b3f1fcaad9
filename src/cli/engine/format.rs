//! `--format`: the part of Go's templates that people use, over JSON values, and tables as Docker's.
//!
//! Fields (`{{.Name}}`, `{{.Config.Env}}`), literals, variables, pipes, `if`/`else if`/`else`/`end`, `range` (with `$i,
//! $v :=`), `with`, comments, `{{-` and `-}}`, and the functions of `format_words`. What is not a field is an error
//! that names it, as in Go.

use serde_json::{Value, json};

use crate::error::{Error, Result};

/// How the rows of a list are printed.
#[derive(Debug)]
pub enum Format {
    /// The default table, or one with columns of its own: the template's fields are the headings.
    Table(Option<Template>),
    /// One JSON object a line, as Docker prints them.
    Json,
    /// One line a row.
    Lines(Template),
}

impl Format {
    /// Understands the value of `--format`; without one it is the default table.
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::Table(None)) };
        Ok(match text.strip_prefix("table") {
            Some("") => Self::Table(None),
            Some(rest) if rest.starts_with([' ', '\t']) => {
                Self::Table(Some(Template::parse(rest.trim_start())?))
            }
            _ if text == "json" => Self::Json,
            _ => Self::Lines(Template::parse(text)?),
        })
    }

    /// The text for `rows`, objects with Docker's field names. `columns` are heading and field of the default table.
    pub fn list(&self, rows: &[Value], columns: &[(&str, &str)]) -> Result<String> {
        match self {
            Self::Json => Ok(rows.iter().map(|row| format!("{row}\n")).collect()),
            Self::Lines(template) => {
                rows.iter().map(|row| Ok(template.render(row)? + "\n")).collect::<Result<String>>()
            }
            Self::Table(template) => {
                let mut lines = Vec::new();
                if let Some(template) = template {
                    let heads: serde_json::Map<String, Value> = heads(rows, columns);
                    lines.push(template.render(&Value::Object(heads))?);
                    for row in rows {
                        lines.push(template.render(row)?);
                    }
                } else {
                    lines.push(columns.iter().map(|(head, _)| *head).collect::<Vec<_>>().join("\t"));
                    for row in rows {
                        let cell = |(_, field): &(&str, &str)| text(row.get(*field).unwrap_or(&Value::Null));
                        lines.push(columns.iter().map(cell).collect::<Vec<_>>().join("\t"));
                    }
                }
                Ok(align(&lines))
            }
        }
    }
}

/// Each field's heading: the default table's, else its name in capitals with the words apart.
fn heads(rows: &[Value], columns: &[(&str, &str)]) -> serde_json::Map<String, Value> {
    let fields = rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys());
    let mut heads: serde_json::Map<String, Value> =
        fields.map(|field| (field.clone(), json!(capitals(field)))).collect();
    heads.extend(columns.iter().map(|(head, field)| ((*field).to_owned(), json!(head))));
    heads
}

/// `CreatedSince` becomes `CREATED SINCE`, `ImageID` becomes `IMAGE ID`.
fn capitals(field: &str) -> String {
    let mut out = String::new();
    let mut before = ' ';
    for c in field.chars() {
        if c.is_uppercase() && before.is_lowercase() {
            out.push(' ');
        }
        out.extend(c.to_uppercase());
        before = c;
    }
    out
}

/// Columns separated by tabs, three blanks apart as Docker's.
pub fn align(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<usize> = Vec::new();
    for row in &rows {
        for (i, cell) in row.iter().enumerate().take(row.len() - 1) {
            widths.resize(widths.len().max(i + 1), 0);
            widths[i] = widths[i].max(cell.chars().count());
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (i, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if i + 1 < row.len() {
                line.extend(std::iter::repeat_n(' ', widths[i] + 3 - cell.chars().count()));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A value as a template prints it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let items: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", text(value))).collect();
            format!("map[{}]", items.join(" "))
        }
        other => other.to_string(),
    }
}

/// A template that was understood.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<Node>,
}

#[derive(Debug)]
enum Node {
    Text(String),
    Print(Pipe),
    /// `$name := pipe`, which prints nothing.
    Set(String, Pipe),
    If(Pipe, Vec<Node>, Vec<Node>),
    With(Pipe, Vec<Node>, Vec<Node>),
    /// The variables for index and element, what is ranged over, each element, nothing there.
    Range(Vec<String>, Pipe, Vec<Node>, Vec<Node>),
}

/// Commands, each of which gets the value of the one before it as its last argument.
type Pipe = Vec<Vec<Operand>>;

#[derive(Debug)]
enum Operand {
    Literal(Value),
    Word(String),
    /// A start (`None`: the dot; `Some("")`: the root; else a variable), and fields.
    Field(Option<String>, Vec<String>),
    Group(Pipe, Vec<String>),
}

/// The dot, the root and the variables, the innermost last.
struct Scope<'v> {
    root: &'v Value,
    variables: Vec<(String, Value)>,
}

impl Template {
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { pieces: pieces(&unescape(text))?, at: 0, depth: 0 };
        let (nodes, end) = parser.nodes()?;
        match end {
            None => Ok(Self { nodes }),
            Some(word) => Err(wrong(format!("unexpected {{{{{word}}}}}"))),
        }
    }

    pub fn render(&self, value: &Value) -> Result<String> {
        let mut out = String::new();
        let mut scope = Scope { root: value, variables: Vec::new() };
        render(&self.nodes, value, &mut scope, &mut out)?;
        Ok(out)
    }
}

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::new(format!("--format: {what}"))
        .next("{{.Field}}, {{json .}}, {{range .List}}...{{end}}; --format '{{json .}}' shows all fields")
}

/// `\t` and `\n` outside of quotes are what the shell left of a tab and a new line.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

enum Piece {
    Text(String),
    Action(String),
}

/// Text and actions in turn. `{{-` and `-}}` take the blanks beside them away, comments go.
fn pieces(text: &str) -> Result<Vec<Piece>> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(at) = rest.find("{{") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        let end = after.find("}}").ok_or_else(|| wrong("an action is not closed with }}"))?;
        let mut action = &after[..end];
        let before = if trim { before.trim_start() } else { before };
        let inner = action.strip_prefix("- ");
        found.push(Piece::Text(if inner.is_some() { before.trim_end() } else { before }.to_owned()));
        action = inner.unwrap_or(action);
        trim = action.ends_with(" -");
        action = action.strip_suffix(" -").unwrap_or(action).trim();
        if !action.starts_with("/*") {
            found.push(Piece::Action(action.to_owned()));
        }
        rest = &after[end + 2..];
    }
    found.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    Ok(found)
}

struct Parser {
    pieces: Vec<Piece>,
    at: usize,
    depth: usize,
}

/// How deep blocks and brackets may be nested: a template comes from a command line, but a stack is small.
const DEEPEST: usize = 64;

impl Parser {
    /// Everything up to the `end` or `else` that closes this block, which is returned with it.
    fn nodes(&mut self) -> Result<(Vec<Node>, Option<String>)> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(wrong("nested too deep"));
        }
        let mut nodes = Vec::new();
        while self.at < self.pieces.len() {
            let piece = std::mem::replace(&mut self.pieces[self.at], Piece::Text(String::new()));
            self.at += 1;
            let action = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(action) => action,
            };
            let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((&action, ""));
            match word {
                "end" | "else" => {
                    self.depth -= 1;
                    return Ok((nodes, Some(action)));
                }
                "if" => nodes.push(self.branch(rest, Node::If)?),
                "with" => nodes.push(self.branch(rest, Node::With)?),
                "range" => {
                    let (variables, pipe) = match rest.split_once(":=") {
                        Some((names, pipe)) => (variables(names)?, pipe),
                        None => (Vec::new(), rest),
                    };
                    nodes.push(self.branch(pipe, |pipe, yes, no| Node::Range(variables, pipe, yes, no))?);
                }
                _ => match action.split_once(":=") {
                    Some((name, value)) if name.trim_start().starts_with('$') => {
                        let name = variables(name)?.pop().unwrap_or_default();
                        nodes.push(Node::Set(name, pipe(value)?));
                    }
                    _ => nodes.push(Node::Print(pipe(&action)?)),
                },
            }
        }
        self.depth -= 1;
        Ok((nodes, None))
    }

    fn branch(
        &mut self,
        condition: &str,
        make: impl FnOnce(Pipe, Vec<Node>, Vec<Node>) -> Node,
    ) -> Result<Node> {
        let condition = pipe(condition)?;
        let (yes, end) = self.nodes()?;
        let no = match end.as_deref().map(str::trim) {
            Some("end") => Vec::new(),
            Some("else") => match self.nodes()? {
                (no, Some(end)) if end == "end" => no,
                _ => return Err(wrong("{{else}} without {{end}}")),
            },
            Some(other) if other.starts_with("else if ") => {
                vec![self.branch(&other["else if ".len()..], Node::If)?]
            }
            _ => return Err(wrong("a block without {{end}}")),
        };
        Ok(make(condition, yes, no))
    }
}

/// `$i, $v`
fn variables(text: &str) -> Result<Vec<String>> {
    let name = |name: &str| {
        let name = name.trim().strip_prefix('$').filter(|name| !name.is_empty());
        name.map(str::to_owned).ok_or_else(|| wrong(format!("{text:?} is no variable")))
    };
    text.split(',').map(name).collect()
}

fn pipe(text: &str) -> Result<Pipe> {
    let mut rest = text.trim();
    let pipe = commands(&mut rest, 0)?;
    if rest.is_empty() { Ok(pipe) } else { Err(wrong(format!("unexpected {rest:?}"))) }
}

/// Commands up to the end or a closing bracket.
fn commands(rest: &mut &str, depth: usize) -> Result<Pipe> {
    if depth > DEEPEST {
        return Err(wrong("nested too deep"));
    }
    let mut pipe = vec![Vec::new()];
    loop {
        *rest = rest.trim_start();
        match rest.chars().next() {
            None | Some(')') => break,
            Some('|') => {
                pipe.push(Vec::new());
                *rest = &rest[1..];
            }
            Some(_) => {
                let operand = operand(rest, depth)?;
                pipe.last_mut().expect("never empty").push(operand);
            }
        }
    }
    if pipe.iter().any(Vec::is_empty) { Err(wrong("an empty command")) } else { Ok(pipe) }
}

fn operand(rest: &mut &str, depth: usize) -> Result<Operand> {
    match rest.chars().next() {
        Some('(') => {
            *rest = &rest[1..];
            let inner = commands(rest, depth + 1)?;
            *rest = rest.strip_prefix(')').ok_or_else(|| wrong("a bracket is not closed"))?;
            let end = word_end(rest);
            let fields = path(&rest[..end]);
            *rest = &rest[end..];
            Ok(Operand::Group(inner, fields))
        }
        Some(quote @ ('"' | '`' | '\'')) => {
            let (text, length) = quoted(rest, quote)?;
            *rest = &rest[length..];
            Ok(Operand::Literal(Value::String(text)))
        }
        _ => {
            let end = word_end(rest);
            let word = &rest[..end];
            *rest = &rest[end..];
            Ok(match word {
                "true" | "false" => Operand::Literal(json!(word == "true")),
                "nil" => Operand::Literal(Value::Null),
                _ if word.starts_with('.') => Operand::Field(None, path(word)),
                _ if word.starts_with('$') => {
                    let (name, fields) = word[1..].split_once('.').unwrap_or((&word[1..], ""));
                    Operand::Field(Some(name.to_owned()), path(fields))
                }
                _ => match word.parse::<f64>() {
                    Ok(_) => Operand::Literal(serde_json::from_str(word).map_err(|_| wrong(word))?),
                    Err(_) => Operand::Word(word.to_owned()),
                },
            })
        }
    }
}

fn word_end(text: &str) -> usize {
    text.find(|c: char| c.is_whitespace() || "|()\"`".contains(c)).unwrap_or(text.len())
}

fn path(text: &str) -> Vec<String> {
    text.split('.').filter(|field| !field.is_empty()).map(str::to_owned).collect()
}

/// A quoted text and how many bytes it took.
fn quoted(text: &str, quote: char) -> Result<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            _ if c == quote => return Ok((out, at + 1)),
            '\\' if quote != '`' => match chars.next().map(|(_, c)| c) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(c) => out.push(c),
                None => break,
            },
            _ => out.push(c),
        }
    }
    Err(wrong("a quote is not closed"))
}

fn render(nodes: &[Node], dot: &Value, scope: &mut Scope<'_>, out: &mut String) -> Result<()> {
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipe) => out.push_str(&text(&value_of(pipe, dot, scope)?)),
            Node::Set(name, pipe) => {
                let value = value_of(pipe, dot, scope)?;
                scope.variables.push((name.clone(), value));
            }
            Node::If(condition, yes, no) => {
                let nodes = if truth(&value_of(condition, dot, scope)?) { yes } else { no };
                block(nodes, dot, scope, out, &[])?;
            }
            Node::With(condition, yes, no) => {
                let value = value_of(condition, dot, scope)?;
                if truth(&value) {
                    block(yes, &value, scope, out, &[])?
                } else {
                    block(no, dot, scope, out, &[])?
                }
            }
            Node::Range(variables, list, each, none) => {
                let list = value_of(list, dot, scope)?;
                let items: Vec<(Value, Value)> = match list {
                    Value::Array(items) => {
                        items.into_iter().enumerate().map(|(i, item)| (json!(i), item)).collect()
                    }
                    Value::Object(map) => map.into_iter().map(|(key, item)| (json!(key), item)).collect(),
                    Value::Null => Vec::new(),
                    other => return Err(wrong(format!("range over {other}"))),
                };
                if items.is_empty() {
                    block(none, dot, scope, out, &[])?;
                }
                for (key, item) in items {
                    let bound = match variables.as_slice() {
                        [value] => vec![(value.clone(), item.clone())],
                        [first, second, ..] => vec![(first.clone(), key), (second.clone(), item.clone())],
                        [] => Vec::new(),
                    };
                    block(each, &item, scope, out, &bound)?;
                }
            }
        }
    }
    Ok(())
}

/// A block, whose variables end with it.
fn block(
    nodes: &[Node],
    dot: &Value,
    scope: &mut Scope<'_>,
    out: &mut String,
    bound: &[(String, Value)],
) -> Result<()> {
    let before = scope.variables.len();
    scope.variables.extend_from_slice(bound);
    let rendered = render(nodes, dot, scope, out);
    scope.variables.truncate(before);
    rendered
}

/// What Go's templates take for true.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn value_of(pipe: &Pipe, dot: &Value, scope: &Scope<'_>) -> Result<Value> {
    let mut last: Option<Value> = None;
    for command in pipe {
        let (first, rest) = command.split_first().ok_or_else(|| wrong("an empty command"))?;
        let mut arguments: Vec<Value> =
            rest.iter().map(|operand| operand_value(operand, dot, scope)).collect::<Result<_>>()?;
        arguments.extend(last.take());
        last = Some(match first {
            Operand::Word(name) => super::format_words::call(name, &arguments).map_err(wrong)?,
            operand if arguments.is_empty() => operand_value(operand, dot, scope)?,
            Operand::Field(None, path) if path == &["Label"] => super::format_words::label(dot, &arguments),
            _ => return Err(wrong("a field takes no arguments")),
        });
    }
    Ok(last.unwrap_or(Value::Null))
}

fn operand_value(operand: &Operand, dot: &Value, scope: &Scope<'_>) -> Result<Value> {
    match operand {
        Operand::Literal(value) => Ok(value.clone()),
        Operand::Word(name) => super::format_words::call(name, &[]).map_err(wrong),
        Operand::Field(None, fields) => fields_of(dot, fields),
        Operand::Field(Some(name), fields) if name.is_empty() => fields_of(scope.root, fields),
        Operand::Field(Some(name), fields) => {
            let found = scope.variables.iter().rev().find(|(other, _)| other == name);
            fields_of(&found.ok_or_else(|| wrong(format!("no variable ${name}")))?.1, fields)
        }
        Operand::Group(pipe, fields) => fields_of(&value_of(pipe, dot, scope)?, fields),
    }
}

/// A field of a field. A name that an object of fixed fields does not have is a mistake of the caller's; a map of
/// labels just lacks it, which JSON does not tell apart: the first field must be there.
fn fields_of(value: &Value, fields: &[String]) -> Result<Value> {
    let mut value = value;
    for (i, field) in fields.iter().enumerate() {
        value = match value {
            Value::Object(map) => match map.get(field) {
                Some(inner) => inner,
                None if i > 0 => return Ok(Value::Null),
                None => return Err(wrong(format!("there is no field {field}"))),
            },
            Value::Null => return Ok(Value::Null),
            _ => return Err(wrong(format!("{} has no field {field}", text(value)))),
        };
    }
    Ok(value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(template: &str, value: &Value) -> String {
        Template::parse(template)
            .and_then(|t| t.render(value))
            .unwrap_or_else(|e| format!("error: {}", e.what()))
    }

    #[test]
    fn what_people_use() {
        let value = json!({
            "ID": "abc", "Names": ["/a", "/b"], "State": {"Running": true, "Pid": 7},
            "Config": {"Env": ["A=b", "C=d"], "Labels": {"x.y": "z"}}, "Size": 12, "Empty": [],
        });
        for (template, wanted) in [
            ("{{.ID}}", "abc"),
            ("{{ .State.Pid }}\\t{{.Size}}", "7\t12"),
            ("{{json .Config.Env}}", r#"["A=b","C=d"]"#),
            ("{{.Names}}", "[/a /b]"),
            ("{{range .Config.Env}}{{println .}}{{end}}", "A=b\nC=d\n"),
            ("{{range $i, $e := .Names}}{{$i}}={{$e}} {{end}}", "0=/a 1=/b "),
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{if .Empty}}some{{else if eq .Size 12}}twelve{{else}}none{{end}}", "twelve"),
            ("{{index .Config.Labels \"x.y\"}}", "z"),
            ("{{index .Names 1}}", "/b"),
            ("{{(index .Names 0)}}", "/a"),
            ("{{join .Names \",\"}}", "/a,/b"),
            ("{{.ID | upper}}", "ABC"),
            ("{{with .State}}{{.Pid}}{{$.ID}}{{end}}", "7abc"),
            ("{{len .Names}} {{printf \"%s-%d\" .ID .Size}}", "2 abc-12"),
            ("a {{- .ID -}} b", "aabcb"),
            ("{{/* nothing */}}{{slice .ID 1}}", "bc"),
            ("{{and .Size (not .Empty)}}", "true"),
            ("{{$x := .ID}}{{$x}}", "abc"),
            ("{{.Config.Nothing}}", "<no value>"),
            ("{{.Nothing}}", "error: --format: there is no field Nothing"),
            ("{{", "error: --format: an action is not closed with }}"),
            ("{{if .ID}}", "error: --format: a block without {{end}}"),
            ("{{frobnicate .}}", "error: --format: there is no function frobnicate"),
        ] {
            assert_eq!(shown(template, &value), wanted, "{template}");
        }
        assert!(Template::parse(&"{{if 1}}".repeat(500)).is_err(), "nested too deep");
        assert!(Template::parse(&format!("{{{{{}}}}}", "(".repeat(500))).is_err(), "nested too deep");
    }

    #[test]
    fn tables() {
        let rows = [json!({"ID": "1", "ImageName": "long one"}), json!({"ID": "22", "ImageName": "x"})];
        let columns = [("CONTAINER ID", "ID")];
        let list = |format: &str| Format::parse(Some(format)).unwrap().list(&rows, &columns).unwrap();
        assert_eq!(list("table"), "CONTAINER ID\n1\n22\n");
        let wanted = "CONTAINER ID   IMAGE NAME\n1              long one\n22             x\n";
        assert_eq!(list("table {{.ID}}\\t{{.ImageName}}"), wanted);
        assert_eq!(list("{{.ID}}"), "1\n22\n");
        assert_eq!(list("json").lines().count(), 2);
    }
}
