//! Topic names and topic filters: which strings are some.

use crate::codec::fault::{DecodeError, malformed};
use crate::codec::text::Text;

/// Checks the name a message is published to. An empty one passes only where a topic alias may stand for it, which the caller decides.
pub fn check_topic_name(name: &Text) -> Result<(), DecodeError> {
    if name.as_bytes().iter().any(|byte| matches!(byte, b'+' | b'#')) {
        return Err(malformed("MQTT-3.3.2-2", "a topic name contains a wildcard"));
    }
    if name.has_refusable_letters() {
        return Err(malformed("5.0 section 1.5.4", "a topic name contains a control character"));
    }
    Ok(())
}

/// Checks a filter of SUBSCRIBE or UNSUBSCRIBE: wildcards stand alone in their level, `#` in the last one.
pub fn check_topic_filter(filter: &Text) -> Result<(), DecodeError> {
    if filter.is_empty() {
        return Err(malformed("MQTT-4.7.3-1", "a topic filter is empty"));
    }
    if filter.has_refusable_letters() {
        return Err(malformed("5.0 section 1.5.4", "a topic filter contains a control character"));
    }
    let mut levels = filter.as_bytes().split(|byte| *byte == b'/').peekable();
    while let Some(level) = levels.next() {
        if level.contains(&b'#') && (level.len() > 1 || levels.peek().is_some()) {
            return Err(malformed("MQTT-4.7.1-1", "a # in a topic filter is not its whole last level"));
        }
        if level.contains(&b'+') && level.len() > 1 {
            return Err(malformed("MQTT-4.7.1-2", "a + in a topic filter is not a whole level"));
        }
    }
    Ok(())
}

/// A filter `$share/{group}/{filter}` taken apart (MQTT 5.0 section 4.8.2). `None`: it is not shared.
///
/// # Errors
/// If it begins like one and the group is empty or has a wildcard, or no filter follows.
pub fn shared_parts(filter: &Text) -> Result<Option<(&str, &str)>, DecodeError> {
    let Some(rest) = filter.as_str().strip_prefix("$share/") else { return Ok(None) };
    let Some((group, shared)) = rest.split_once('/') else {
        return Err(malformed("MQTT-4.8.2-2", "the group of a shared subscription is not followed by a filter"));
    };
    if group.is_empty() {
        return Err(malformed("MQTT-4.8.2-1", "the group of a shared subscription is empty"));
    }
    if group.contains(['+', '#']) {
        return Err(malformed("MQTT-4.8.2-2", "the group of a shared subscription contains a wildcard"));
    }
    if shared.is_empty() {
        return Err(malformed("MQTT-4.7.3-1", "the filter of a shared subscription is empty"));
    }
    Ok(Some((group, shared)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_the_standard_are_told_apart() {
        for good in ["sport/tennis/player1/#", "sport/#", "#", "+", "+/tennis/#", "sport/+/player1", "/+", "/", "$SYS/#", "a//b"] {
            assert_eq!(check_topic_filter(&Text::fixed(good)), Ok(()), "{good}");
        }
        for (bad, rule) in [
            ("sport/tennis#", "MQTT-4.7.1-1"),
            ("sport/tennis/#/ranking", "MQTT-4.7.1-1"),
            ("##", "MQTT-4.7.1-1"),
            ("sport+", "MQTT-4.7.1-2"),
            ("ab/+e", "MQTT-4.7.1-2"),
            ("++/a", "MQTT-4.7.1-2"),
            ("", "MQTT-4.7.3-1"),
            ("a\u{1}", "5.0 section 1.5.4"),
        ] {
            assert_eq!(check_topic_filter(&Text::fixed(bad)).map_err(|error| error.rule), Err(rule), "{bad}");
        }
    }

    #[test]
    fn names_have_no_wildcards() {
        assert_eq!(check_topic_name(&Text::fixed("finance/stock/ibm")), Ok(()));
        assert_eq!(check_topic_name(&Text::fixed("")), Ok(()));
        assert!(check_topic_name(&Text::fixed("sport/+")).is_err());
        assert!(check_topic_name(&Text::fixed("sport#")).is_err());
        assert!(check_topic_name(&Text::fixed("a\u{9f}")).is_err());
    }

    #[test]
    fn shared_filters_are_taken_apart() {
        assert_eq!(shared_parts(&Text::fixed("$share/g/a/+/#")), Ok(Some(("g", "a/+/#"))));
        assert_eq!(shared_parts(&Text::fixed("$share/g//finance")), Ok(Some(("g", "/finance"))));
        assert_eq!(shared_parts(&Text::fixed("$shared/g/a")), Ok(None));
        for bad in ["$share/", "$share//a", "$share/g", "$share/g/", "$share/g+/a", "$share/#/a"] {
            assert!(shared_parts(&Text::fixed(bad)).is_err(), "{bad}");
        }
    }
}
