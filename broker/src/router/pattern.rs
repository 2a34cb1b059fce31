//! What of a filter counts for matching.

use firth_model::filter::{Filter, FilterLevel};

/// What a node of the trie begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Literal,
    One,
    Prefix,
    Any,
    Rest,
}

/// One level of a pattern: canonical text of a literal, bytes of a prefix, nothing otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step<'a> {
    pub kind: Kind,
    pub bytes: &'a [u8],
}

/// A filter with each run of wildcards in one order: first every `*`, then one `#` or the closing `>` if the run has one. It matches
/// the same, and filters of wildcards only, however many and however written, become at most three for each number of `*`.
pub struct Pattern<'a> {
    pub steps: Vec<Step<'a>>,
    /// Whether the filter is written as the pattern is. At most one filter of each rule for reserved subjects is.
    pub plain: bool,
}

impl<'a> Pattern<'a> {
    pub fn of(filter: &'a Filter) -> Pattern<'a> {
        let mut steps = Vec::with_capacity(filter.levels().len());
        let mut plain = true;
        let mut any = false;
        for (level, text) in filter.levels().iter().zip(filter.as_bytes().split(|&byte| byte == b'/')) {
            let (kind, bytes) = match level {
                FilterLevel::Literal(text) => (Kind::Literal, &text[..]),
                FilterLevel::Prefix(prefix) => (Kind::Prefix, &prefix[..]),
                FilterLevel::One => (Kind::One, &b""[..]),
                FilterLevel::Rest => (Kind::Rest, &b""[..]),
                FilterLevel::Any => {
                    plain &= !any;
                    any = true;
                    continue;
                }
            };
            match kind {
                Kind::One => plain &= !any,
                Kind::Rest => {
                    plain &= !any;
                    any = false;
                }
                _ if any => {
                    steps.push(Step { kind: Kind::Any, bytes: b"" });
                    any = false;
                }
                _ => {}
            }
            plain &= kind != Kind::Prefix || text.strip_suffix(b"*") == Some(bytes);
            steps.push(Step { kind, bytes });
        }
        if any {
            steps.push(Step { kind: Kind::Any, bytes: b"" });
        }
        Pattern { steps, plain }
    }

    /// Whether it begins with a literal or a prefix: then it may match reserved subjects.
    pub fn is_named(&self) -> bool {
        self.steps.first().is_some_and(|step| matches!(step.kind, Kind::Literal | Kind::Prefix))
    }

    /// The first level of all subjects that it matches, if there is only one.
    pub fn first_level(&self) -> Option<&'a [u8]> {
        self.steps.first().filter(|step| step.kind == Kind::Literal).map(|step| step.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> (String, bool) {
        let filter = Filter::parse(text).unwrap();
        let pattern = Pattern::of(&filter);
        let levels: Vec<String> = pattern
            .steps
            .iter()
            .map(|step| match step.kind {
                Kind::Literal => String::from_utf8(step.bytes.to_vec()).unwrap(),
                Kind::Prefix => format!("{}*", step.bytes.escape_ascii()),
                Kind::One => "*".to_owned(),
                Kind::Any => "#".to_owned(),
                Kind::Rest => ">".to_owned(),
            })
            .collect();
        (levels.join("/"), pattern.plain)
    }

    #[test]
    fn runs_of_wildcards_have_one_order() {
        for text in ["a/b", "*/*/#/a", "a/#", ">", "a/*/>", "", "pre*/#", "#/pre*/*"] {
            assert_eq!(shown(text), (text.to_owned(), true));
        }
        for (text, pattern) in [("#/*/#/a", "*/#/a"), ("#/#", "#"), ("#/>", ">"), ("a/#/*/>", "a/*/>"), ("a%2F*", "a/*")] {
            assert_eq!(shown(text), (pattern.to_owned(), false));
        }
    }
}
