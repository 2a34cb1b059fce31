//! What one Kafka setting is, and which values it takes.

use firth_model::filter::Filter;

/// The type of a value, as clients are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Boolean,
    Text,
    Short,
    Int,
    Long,
    Double,
    List,
}

impl Kind {
    /// Source: Apache Kafka, `DescribeConfigsResponse`, field `ConfigType`.
    pub const fn number(self) -> i8 {
        match self {
            Kind::Boolean => 1,
            Kind::Text => 2,
            Kind::Int => 3,
            Kind::Short => 4,
            Kind::Long => 5,
            Kind::Double => 6,
            Kind::List => 7,
        }
    }
}

/// What a value must be besides being of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    Any,
    /// Both ends included.
    Between(i64, i64),
    /// As `Between`, or -1.
    BetweenOrMinusOne(i64, i64),
    /// From 0 to 1.
    Fraction,
    /// This text, or elements of these in a list.
    Among(&'static [&'static str]),
    /// `*`, or pairs of partition and broker such as `0:1`.
    ReplicaPairs,
    /// `latest`, `earliest` or `by_duration:` and an ISO 8601 duration.
    OffsetReset,
    /// Filters over subjects in canonical text.
    Filters,
}

/// At least `min`, with no other end.
pub const fn at_least(min: i64) -> Rule {
    Rule::Between(min, i64::MAX)
}

/// One setting of a topic or group.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub rule: Rule,
    /// Names under which Apache Kafka's brokers have the default, the strongest first.
    pub node_names: &'static [&'static str],
    pub meaning: &'static str,
}

impl Setting {
    /// The value of `text` as it is stored and shown. The error says what the value would have to be.
    pub fn parse(&self, text: &str) -> Result<String, String> {
        let text = text.trim();
        let parsed = match self.kind {
            Kind::Boolean => parse_boolean(text),
            Kind::Text => Some(text.to_owned()),
            Kind::Short => text.parse::<i16>().ok().map(|number| number.to_string()),
            Kind::Int => text.parse::<i32>().ok().map(|number| number.to_string()),
            Kind::Long => text.parse::<i64>().ok().map(|number| number.to_string()),
            Kind::Double => text.parse::<f64>().ok().map(|number| format!("{number:?}")),
            Kind::List if text.is_empty() => Some(String::new()),
            Kind::List => Some(text.split(',').map(str::trim).collect::<Vec<_>>().join(",")),
        };
        let Some(parsed) = parsed else {
            let kind = format!("{:?}", self.kind).to_lowercase();
            return Err(format!("{} cannot be \"{text}\": it is of type {kind}", self.name));
        };
        if self.obeys(&parsed) { Ok(parsed) } else { Err(format!("{} cannot be \"{text}\": it is {}", self.name, self.allowed())) }
    }

    fn obeys(&self, value: &str) -> bool {
        let number = value.parse::<i64>();
        match self.rule {
            Rule::Any => true,
            Rule::Between(min, max) => number.is_ok_and(|number| (min..=max).contains(&number)),
            Rule::BetweenOrMinusOne(min, max) => number.is_ok_and(|number| number == -1 || (min..=max).contains(&number)),
            Rule::Fraction => value.parse::<f64>().is_ok_and(|number| (0.0..=1.0).contains(&number)),
            Rule::Among(words) if self.kind == Kind::List => elements(value).all(|element| words.contains(&element)),
            Rule::Among(words) => words.contains(&value),
            Rule::ReplicaPairs => value == "*" || elements(value).all(is_pair),
            Rule::Filters => elements(value).all(|element| Filter::parse(element).is_ok()),
            Rule::OffsetReset => matches!(value, "latest" | "earliest") || value.strip_prefix("by_duration:").is_some_and(is_duration),
        }
    }

    fn allowed(&self) -> String {
        match self.rule {
            Rule::Any => "anything".to_owned(),
            Rule::Between(min, i64::MAX) => format!("at least {min}"),
            Rule::Between(min, max) => format!("from {min} to {max}"),
            Rule::BetweenOrMinusOne(min, max) => format!("from {min} to {max}, or -1"),
            Rule::Fraction => "from 0 to 1".to_owned(),
            Rule::Among(words) => format!("one of {}", words.join(", ")),
            Rule::ReplicaPairs => "* or pairs of partition and broker".to_owned(),
            Rule::Filters => "filters such as order/init/>".to_owned(),
            Rule::OffsetReset => "latest, earliest or by_duration: and a duration".to_owned(),
        }
    }
}

/// The elements of a list's value.
pub fn elements(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').filter(|element| !element.is_empty())
}

fn parse_boolean(text: &str) -> Option<String> {
    let words = ["true", "false"];
    words.into_iter().find(|word| text.eq_ignore_ascii_case(word)).map(str::to_owned)
}

fn is_pair(element: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    element.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker))
}

/// Days, hours, minutes and seconds of ISO 8601, as in `P1DT2H3M4.5S`; never negative.
fn is_duration(text: &str) -> bool {
    let Some(text) = text.strip_prefix(['P', 'p']) else { return false };
    let (days, time) = match text.split_once(['T', 't']) {
        Some((days, time)) => (days, Some(time)),
        None => (text, None),
    };
    let parts = |text: &str, units: &str| {
        let mut units = units.chars();
        let parts = text.split_inclusive(|letter: char| letter.is_ascii_alphabetic());
        parts.into_iter().all(|part| {
            let mut letters = part.chars();
            let unit = letters.next_back().map(|letter| letter.to_ascii_uppercase());
            letters.as_str().parse::<f64>().is_ok_and(|number| number >= 0.0) && unit.is_some_and(|unit| units.any(|known| known == unit))
        })
    };
    let some = !days.is_empty() || time.is_some_and(|time| !time.is_empty());
    some && parts(days, "D") && time.is_none_or(|time| !time.is_empty() && parts(time, "HMS"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, rule: Rule, good: &[(&str, &str)], bad: &[&str]) {
        let setting = Setting { name: "it", kind, default: "", rule, node_names: &[], meaning: "" };
        for (text, value) in good {
            assert_eq!(setting.parse(text).as_deref(), Ok(*value));
        }
        for text in bad {
            assert!(setting.parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_read_as_kafka_reads_them() {
        check(Kind::Boolean, Rule::Any, &[(" TRUE", "true"), ("false", "false")], &["", "1", "yes"]);
        check(Kind::Int, at_least(0), &[("+7", "7"), ("2147483647", "2147483647")], &["-1", "2147483648", "1.0", ""]);
        check(Kind::Int, Rule::BetweenOrMinusOne(1, 9), &[("-1", "-1"), ("9", "9")], &["0", "10"]);
        check(Kind::Double, Rule::Fraction, &[("0.50", "0.5"), ("1", "1.0")], &["1.1", "NaN", "x"]);
        check(Kind::List, Rule::Among(&["a", "b"]), &[("a , b", "a,b"), ("", "")], &["a,c", "A"]);
        check(Kind::List, Rule::ReplicaPairs, &[("*", "*"), ("0:1,10:2", "0:1,10:2"), ("", "")], &["0", ":1", "a:b"]);
        check(Kind::List, Rule::Filters, &[("a/> , b/*/c", "a/>,b/*/c"), ("", "")], &["a/>/b"]);
        let good = [("latest", "latest"), ("by_duration:PT2H3.5S", "by_duration:PT2H3.5S"), ("by_duration:P1D", "by_duration:P1D")];
        check(Kind::Text, Rule::OffsetReset, &good, &["none", "by_duration:", "by_duration:P", "by_duration:PT", "by_duration:PT-1S"]);
    }
}
