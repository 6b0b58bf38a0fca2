//! Patterns: `*`, `?`, `[…]` within a component, `**` for any number of directories.

/// Components of a pattern; the set of live ones is held in 64 bits.
const MAX_PARTS: usize = 64;

/// One component.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    Literal(String),
    Wild(Vec<Token>),
    /// `**`
    Deep,
}

#[derive(Debug, PartialEq)]
pub(super) enum Token {
    Char(char),
    Any,
    Star,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// A pattern, cut into components.
#[derive(Debug)]
pub(super) struct Pattern {
    pub parts: Vec<Part>,
}

/// Which components may match next; one bit each.
pub(super) type States = u64;

/// What a name does to the states of its directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Advance {
    /// The whole pattern matches here.
    pub hit: bool,
    /// What goes on below, if the name is a directory or leads to one.
    pub next: States,
    /// What goes on below through `**`, only if the name is a directory itself.
    pub deep: States,
}

impl Pattern {
    /// Says in words what is wrong.
    pub(super) fn parse(absolute: &str) -> Result<Self, &'static str> {
        let mut parts = Vec::new();
        for text in absolute.split('/') {
            match text {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                "**" if parts.last() == Some(&Part::Deep) => {}
                "**" => parts.push(Part::Deep),
                _ => parts.push(parse_part(text)?),
            }
        }
        if parts.is_empty() {
            return Err("the pattern names nothing");
        }
        if parts.len() > MAX_PARTS {
            return Err("the pattern has too many components");
        }
        Ok(Self { parts })
    }

    pub(super) fn start(&self) -> States {
        self.enter(0)
    }

    /// Component `at` is live; after `**`, which may stand for nothing, the next one too.
    fn enter(&self, at: usize) -> States {
        let mut states = 1 << at;
        if self.parts[at] == Part::Deep && at + 1 < self.parts.len() {
            states |= 1 << (at + 1); // never `**` twice in a row
        }
        states
    }

    fn live(&self, states: States) -> impl Iterator<Item = (usize, &Part)> {
        self.parts.iter().enumerate().filter(move |(i, _)| states & (1 << i) != 0)
    }

    /// The names that can match, if those are few and known.
    pub(super) fn literals(&self, states: States) -> Option<Vec<&str>> {
        let mut names: Vec<&str> = self
            .live(states)
            .map(|(_, part)| match part {
                Part::Literal(name) => Some(name.as_str()),
                Part::Wild(_) | Part::Deep => None,
            })
            .collect::<Option<_>>()?;
        names.sort_unstable();
        names.dedup();
        Some(names)
    }

    pub(super) fn advance(&self, states: States, name: &str) -> Advance {
        let mut result = Advance::default();
        for (at, part) in self.live(states) {
            let last = at + 1 == self.parts.len();
            let matches = match part {
                Part::Deep => {
                    result.deep |= self.enter(at);
                    last
                }
                Part::Literal(text) => text == name,
                Part::Wild(tokens) => matches(tokens, name),
            };
            if matches && last {
                result.hit = true;
            } else if matches {
                result.next |= self.enter(at + 1);
            }
        }
        result
    }
}

fn parse_part(text: &str) -> Result<Part, &'static str> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if tokens.last() == Some(&Token::Star) => continue,
            '*' => Token::Star,
            '?' => Token::Any,
            '\\' => Token::Char(chars.next().ok_or("the pattern ends in a backslash")?),
            '[' => parse_class(&mut chars)?,
            other => Token::Char(other),
        });
    }
    let literal = tokens
        .iter()
        .map(|t| match t {
            Token::Char(c) => Some(*c),
            Token::Any | Token::Star | Token::Class { .. } => None,
        })
        .collect::<Option<String>>();
    Ok(literal.map_or(Part::Wild(tokens), Part::Literal))
}

fn parse_class(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
) -> Result<Token, &'static str> {
    const OPEN: &str = "the pattern has a [ without its ]";
    let negated = chars.next_if(|c| matches!(c, '!' | '^')).is_some();
    let mut ranges = Vec::new();
    loop {
        let from = match chars.next().ok_or(OPEN)? {
            ']' if !ranges.is_empty() => return Ok(Token::Class { negated, ranges }),
            '\\' => chars.next().ok_or(OPEN)?,
            other => other,
        };
        let mut to = from;
        if chars.peek() == Some(&'-') {
            let mut ahead = chars.clone();
            ahead.next();
            if ahead.peek().is_some_and(|c| *c != ']') {
                *chars = ahead;
                to = match chars.next().ok_or(OPEN)? {
                    '\\' => chars.next().ok_or(OPEN)?,
                    other => other,
                };
            }
        }
        ranges.push((from, to));
    }
}

/// Matches with one place to fall back to, the last `*`: at most length times length steps.
fn matches(tokens: &[Token], name: &str) -> bool {
    let (mut at, mut rest) = (0, name.chars());
    let mut fallback: Option<(usize, std::str::Chars<'_>)> = None;
    loop {
        if tokens.get(at) == Some(&Token::Star) {
            fallback = Some((at + 1, rest.clone()));
            at += 1;
            continue;
        }
        let mut ahead = rest.clone();
        let fits = match (tokens.get(at), ahead.next()) {
            (None, None) => return true,
            (Some(token), Some(c)) => token.fits(c),
            (None, Some(_)) | (Some(_), None) => false,
        };
        if fits {
            (at, rest) = (at + 1, ahead);
            continue;
        }
        let Some((after, from)) = &mut fallback else { return false };
        if from.next().is_none() {
            return false;
        }
        (at, rest) = (*after, from.clone());
    }
}

impl Token {
    fn fits(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Any => true,
            Self::Star => false,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(pattern: &str, name: &str) -> bool {
        let pattern = Pattern::parse(pattern).unwrap();
        pattern.advance(pattern.start(), name).hit
    }

    #[test]
    fn components_match_as_in_a_shell() {
        for (pattern, yes, no) in [
            ("*", "anything", "\u{0}none"),
            ("*.txt", ".txt", "a.txt.gz"),
            ("a*b*c", "a-b-b-c", "a-b-"),
            ("?", "ä", "ab"),
            ("[a-c]x", "bx", "dx"),
            ("[!a-c]x", "dx", "bx"),
            ("[]a]", "]", "b"),
            ("[a-]", "-", "b"),
            ("\\*", "*", "a"),
            ("lit", "lit", "li"),
        ] {
            assert!(one(pattern, yes), "{pattern} {yes}");
            assert!(pattern == "*" || !one(pattern, no), "{pattern} {no}");
        }
        for bad in ["[a", "a\\", "[]", "/", "/.."] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        assert!(Pattern::parse(&"/a".repeat(65)).is_err());
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = format!("{}b", "a*".repeat(60));
        assert!(!one(&pattern, &"a".repeat(250)));
    }

    #[test]
    fn deep_parts_stand_for_any_number_of_directories() {
        let p = Pattern::parse("/x/**/**/y").unwrap();
        assert_eq!(p.parts.len(), 3);
        let x = p.advance(p.start(), "x");
        assert_eq!((x.hit, x.deep), (false, 0));
        let y = p.advance(x.next, "y");
        assert!(y.hit && y.deep != 0);
        let z = p.advance(x.next, "z");
        assert!(!z.hit && z.next == 0);
        assert!(p.advance(z.deep, "y").hit);
        assert!(p.literals(p.start()).is_some() && p.literals(x.next).is_none());
    }
}
