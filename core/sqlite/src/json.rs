//! Reading JSON that came over the wire: checked before anything else is done with it, without recursion.
//!
//! Stricter than most parsers: at most [`JSON_DEPTH_MAX`] levels, no key twice in one object, no lone surrogates, no
//! integer beyond 64 bits. What passes means the same to every implementation.

use std::borrow::Cow;

use entgldb_replica::limits::JSON_DEPTH_MAX;

/// Why bytes are not a document. Whoever wrote the document is at fault; nothing was taken of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum JsonFault {
    /// Not UTF-8.
    #[error("the document is not UTF-8")]
    NotUtf8,
    /// Not JSON.
    #[error("the document is not JSON: unexpected input at byte {at}")]
    Syntax {
        /// Offset of the first byte that does not fit.
        at: usize,
    },
    /// JSON, but no object.
    #[error("the document is not a JSON object")]
    NotAnObject,
    /// Nested too deeply.
    #[error("the document is nested deeper than the limit JSON_DEPTH_MAX allows ({JSON_DEPTH_MAX})")]
    TooDeep,
    /// An object with the same key twice.
    #[error("the document has the key {key:?} twice in one object")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A number that 64 bits do not hold.
    #[error("the document has a number that does not fit 64 bits, at byte {at}")]
    NumberTooLarge {
        /// Offset of the number.
        at: usize,
    },
}

/// What sort of JSON value a piece of text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Null,
    True,
    False,
    Integer,
    Real,
    Text { escaped: bool },
    Array,
    Object,
}

/// A member of an object: its name, and the text of its value as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) raw: &'a str,
    pub(crate) kind: Kind,
}

/// The members of a document, in its order.
pub(crate) fn fields(content: &[u8]) -> Result<Vec<Field<'_>>, JsonFault> {
    let text = std::str::from_utf8(content).map_err(|_| JsonFault::NotUtf8)?;
    let mut scanner = Scanner { text, at: 0 };
    scanner.space();
    if scanner.peek() != Some(b'{') {
        scanner.value()?;
        return Err(JsonFault::NotAnObject);
    }
    let found = scanner.members()?;
    scanner.space();
    if scanner.at < text.len() { Err(scanner.fault()) } else { Ok(found) }
}

/// The elements of an array, as text, in order.
pub(crate) fn elements(text: &str) -> Result<Vec<(&str, Kind)>, JsonFault> {
    let mut scanner = Scanner { text, at: 0 };
    scanner.expect(b'[')?;
    let mut found = Vec::new();
    loop {
        scanner.space();
        let from = scanner.at;
        let kind = scanner.value()?;
        found.push((&text[from..scanner.at], kind));
        scanner.space();
        if !scanner.eat(b',') {
            break;
        }
    }
    scanner.expect(b']')?;
    if scanner.at < text.len() { Err(scanner.fault()) } else { Ok(found) }
}

/// The text of a JSON string, without its quotes and escapes.
pub(crate) fn unescaped(raw: &str, escaped: bool) -> Cow<'_, str> {
    let inner = &raw[1..raw.len() - 1];
    if !escaped {
        return Cow::Borrowed(inner);
    }
    let (mut text, mut rest) = (String::with_capacity(inner.len()), inner);
    while let Some(position) = rest.find('\\') {
        text.push_str(&rest[..position]);
        let bytes = rest.as_bytes();
        let (character, used) = match bytes[position + 1] {
            b'u' => unescaped_unicode(&rest[position..]),
            b'b' => ('\u{8}', 2),
            b'f' => ('\u{c}', 2),
            b'n' => ('\n', 2),
            b'r' => ('\r', 2),
            b't' => ('\t', 2),
            other => (char::from(other), 2),
        };
        text.push(character);
        rest = &rest[position + used..];
    }
    text.push_str(rest);
    Cow::Owned(text)
}

fn unescaped_unicode(text: &str) -> (char, usize) {
    let unit = |at: usize| u32::from_str_radix(&text[at..at + 4], 16).unwrap_or(0xfffd);
    let first = unit(2);
    let (code, used) = if (0xd800..0xdc00).contains(&first) {
        (0x1_0000 + ((first - 0xd800) << 10) + (unit(8) - 0xdc00), 12)
    } else {
        (first, 6)
    };
    (char::from_u32(code).unwrap_or('\u{fffd}'), used)
}

/// JSON without the white space between its tokens.
pub(crate) fn compact(raw: &str) -> String {
    let (mut out, mut inside, mut escaped) = (String::with_capacity(raw.len()), false, false);
    for character in raw.chars() {
        if inside || !matches!(character, ' ' | '\t' | '\n' | '\r') {
            out.push(character);
        }
        if escaped {
            escaped = false;
        } else if character == '"' {
            inside = !inside;
        } else if inside && character == '\\' {
            escaped = true;
        }
    }
    out
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// A container that has begun: for an object, the names so far.
enum Open<'a> {
    Array,
    Object(Vec<Cow<'a, str>>),
}

impl<'a> Scanner<'a> {
    fn fault(&self) -> JsonFault {
        JsonFault::Syntax { at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), JsonFault> {
        if self.eat(byte) { Ok(()) } else { Err(self.fault()) }
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn members(&mut self) -> Result<Vec<Field<'a>>, JsonFault> {
        self.expect(b'{')?;
        let mut found: Vec<Field<'a>> = Vec::new();
        self.space();
        if self.eat(b'}') {
            return Ok(found);
        }
        loop {
            let name = self.name()?;
            self.space();
            let from = self.at;
            let kind = self.value()?;
            found.push(Field { name, raw: &self.text[from..self.at], kind });
            self.space();
            if !self.eat(b',') {
                break;
            }
        }
        self.expect(b'}')?;
        if !found.is_sorted_by(|a, b| a.name < b.name) {
            refuse_duplicates(found.iter().map(|field| &field.name).collect())?;
        }
        Ok(found)
    }

    fn name(&mut self) -> Result<Cow<'a, str>, JsonFault> {
        self.space();
        let from = self.at;
        let escaped = self.string()?;
        let name = unescaped(&self.text[from..self.at], escaped);
        self.space();
        self.expect(b':')?;
        Ok(name)
    }

    /// One value with all that is in it; the document around it counts as the first level.
    fn value(&mut self) -> Result<Kind, JsonFault> {
        let mut open: Vec<Open<'a>> = Vec::new();
        let mut outermost = None;
        loop {
            self.space();
            let (kind, opened) = self.token()?;
            outermost.get_or_insert(kind);
            if matches!(kind, Kind::Array | Kind::Object) && open.len() + 2 > JSON_DEPTH_MAX {
                return Err(JsonFault::TooDeep);
            }
            if opened {
                open.push(if kind == Kind::Array { Open::Array } else { Open::Object(vec![self.name()?]) });
                continue;
            }
            if self.after_value(&mut open)? {
                return Ok(outermost.unwrap_or(kind));
            }
        }
    }

    /// A scalar, an empty container, or the beginning of another one (`true`).
    fn token(&mut self) -> Result<(Kind, bool), JsonFault> {
        match self.peek() {
            Some(b'{') => self.begin(b'}', Kind::Object),
            Some(b'[') => self.begin(b']', Kind::Array),
            Some(b'"') => Ok((Kind::Text { escaped: self.string()? }, false)),
            Some(b't') => self.word("true", Kind::True),
            Some(b'f') => self.word("false", Kind::False),
            Some(b'n') => self.word("null", Kind::Null),
            _ => Ok((self.number()?, false)),
        }
    }

    fn begin(&mut self, end: u8, kind: Kind) -> Result<(Kind, bool), JsonFault> {
        self.at += 1;
        self.space();
        Ok((kind, !self.eat(end)))
    }

    fn word(&mut self, word: &str, kind: Kind) -> Result<(Kind, bool), JsonFault> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.fault());
        }
        self.at += word.len();
        Ok((kind, false))
    }

    /// Closes what ends after a value. Answers whether the outermost value is complete.
    fn after_value(&mut self, open: &mut Vec<Open<'a>>) -> Result<bool, JsonFault> {
        loop {
            let Some(innermost) = open.last_mut() else { return Ok(true) };
            self.space();
            if self.eat(b',') {
                if let Open::Object(names) = innermost {
                    names.push(self.name()?);
                }
                return Ok(false);
            }
            match open.pop() {
                Some(Open::Object(names)) => {
                    self.expect(b'}')?;
                    if !names.is_sorted_by(|a, b| a < b) {
                        refuse_duplicates(names.iter().collect())?;
                    }
                }
                _ => self.expect(b']')?,
            }
        }
    }

    fn string(&mut self) -> Result<bool, JsonFault> {
        self.expect(b'"')?;
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        loop {
            match bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0x20..) => self.at += 1,
                _ => return Err(self.fault()),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonFault> {
        let bytes = self.text.as_bytes();
        match bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u') => {
                let unit = self.unit(self.at + 2)?;
                if (0xdc00..0xe000).contains(&unit) {
                    return Err(self.fault());
                }
                if (0xd800..0xdc00).contains(&unit) {
                    let paired = bytes.get(self.at + 6..self.at + 8) == Some(b"\\u");
                    if !paired || !(0xdc00..0xe000).contains(&self.unit(self.at + 8)?) {
                        return Err(self.fault());
                    }
                    self.at += 6;
                }
                self.at += 6;
            }
            _ => return Err(self.fault()),
        }
        Ok(())
    }

    fn unit(&self, at: usize) -> Result<u32, JsonFault> {
        let digits = self.text.as_bytes().get(at..at + 4).ok_or(self.fault())?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(self.fault());
        }
        u32::from_str_radix(&self.text[at..at + 4], 16).map_err(|_| self.fault())
    }

    fn digits(&mut self) -> Result<(), JsonFault> {
        let from = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == from { Err(self.fault()) } else { Ok(()) }
    }

    fn number(&mut self) -> Result<Kind, JsonFault> {
        let from = self.at;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        let mut kind = Kind::Integer;
        if self.eat(b'.') {
            kind = Kind::Real;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            kind = Kind::Real;
            self.at += 1;
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        let text = &self.text[from..self.at];
        let fits = match kind {
            Kind::Integer => text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok(),
            _ => text.parse::<f64>().is_ok_and(f64::is_finite),
        };
        if fits { Ok(kind) } else { Err(JsonFault::NumberTooLarge { at: from }) }
    }
}

fn refuse_duplicates(mut names: Vec<&Cow<'_, str>>) -> Result<(), JsonFault> {
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(JsonFault::DuplicateKey { key: pair[0].clone().into_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_keep_the_text_of_their_values() {
        let found = fields(br#" {"a": [1, {"b":2}] ,"c":"x\u0041\n","d":-1.5e3, "e":null} "#).unwrap();
        let raws: Vec<_> = found.iter().map(|field| (&*field.name, field.raw)).collect();
        assert_eq!(raws, [("a", "[1, {\"b\":2}]"), ("c", "\"x\\u0041\\n\""), ("d", "-1.5e3"), ("e", "null")]);
        assert_eq!(unescaped(found[1].raw, true), "xA\n");
        assert_eq!(compact(found[0].raw), "[1,{\"b\":2}]");
    }

    #[test]
    fn deep_nesting_is_refused_without_deep_recursion() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth - 1), "]".repeat(depth - 1));
        assert!(fields(nested(JSON_DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(fields(nested(JSON_DEPTH_MAX + 1).as_bytes()), Err(JsonFault::TooDeep));
        assert_eq!(fields(nested(100_000).as_bytes()), Err(JsonFault::TooDeep));
    }

    #[test]
    fn a_key_twice_in_one_object_is_refused_at_every_level_also_when_written_differently() {
        for text in [r#"{"a":1,"a":2}"#, r#"{"b":1,"a":{"x":1,"y":2,"\u0078":3}}"#, r#"{"b":1,"a":2,"b":3}"#]
        {
            assert!(matches!(fields(text.as_bytes()), Err(JsonFault::DuplicateKey { .. })), "{text}");
        }
        assert!(fields(br#"{"b":{"a":1},"a":{"a":1}}"#).is_ok());
    }

    #[test]
    fn numbers_beyond_64_bits_and_broken_text_are_refused() {
        assert!(fields(br#"{"a":18446744073709551615,"b":-9223372036854775808}"#).is_ok());
        assert!(matches!(fields(br#"{"a":18446744073709551616}"#), Err(JsonFault::NumberTooLarge { at: 5 })));
        assert!(matches!(fields(br#"{"a":1e999}"#), Err(JsonFault::NumberTooLarge { .. })));
        for text in [
            "",
            "{",
            "{}x",
            "{\"a\"}",
            "{\"a\":01}",
            "{\"a\":1,}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":tru}",
            "{\"a\":\"\n\"}",
            "{\"a\":[1 2]}",
            "{\"a\":[1}",
        ] {
            assert!(matches!(fields(text.as_bytes()), Err(JsonFault::Syntax { .. })), "{text}");
        }
        assert_eq!(fields(b"[1]"), Err(JsonFault::NotAnObject));
        assert_eq!(fields(b"{\"a\":\"\xff\"}"), Err(JsonFault::NotUtf8));
    }

    proptest! {
        #[test]
        fn no_input_makes_it_panic(bytes in prop::collection::vec(prop::sample::select(br#"{}[]",:\u0dc8ae1.-+ tn"#.to_vec()), 0..40)) {
            let _ = fields(&bytes);
        }

        #[test]
        fn what_it_takes_serde_takes_too(text in r#"\{("[a-c]":(1|-2\.5|"x\\n"|\[1,\{\}\]|null|true)(,)?){0,4}\}"#) {
            if fields(text.as_bytes()).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&text).is_ok());
            }
        }
    }
}
