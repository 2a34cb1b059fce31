//! The subject that a stream's name stands for.

use bytes::Bytes;

use crate::filter::Filter;
use crate::names::StreamName;
use crate::subject::{Subject, SubjectError};

/// The stream's own subject: a dot in its name is a level boundary, so `orders.eu` is `orders/eu`. Records of a stream that carry no
/// subject have this one. Fails only for a name with more dots than a subject has levels.
pub fn subject_of_stream(name: &StreamName) -> Result<Subject, SubjectError> {
    Subject::from_text(Bytes::from(name.as_str().replace('.', "/")))
}

/// The name of a stream whose own subject this is, if there can be one: the exact inverse.
pub fn stream_of_subject(subject: &Subject) -> Option<StreamName> {
    if subject.as_bytes().contains(&b'.') {
        return None;
    }
    // Whatever canonical text has to escape has a `%` in it, which is in no name.
    StreamName::parse(&subject.as_str().replace('/', ".")).ok()
}

/// What a stream captures unless it is told otherwise: its own subject and all below it, so `orders/eu/#`. Of several streams the one
/// with the longest name wins. None for a name that begins with `_`: what protocols keep for themselves is not captured by default.
pub fn default_capture(name: &StreamName) -> Option<Filter> {
    let subject = subject_of_stream(name).ok().filter(|subject| !subject.is_reserved())?;
    let capture = Filter::parse(&format!("{subject}/#"));
    Some(capture.expect("a subject and a closing # are within the limits of a filter"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> StreamName {
        StreamName::parse(text).unwrap()
    }

    #[test]
    fn names_and_subjects_correspond() {
        for (text, expected) in [("orders.eu", "orders/eu"), ("a..b.", "a//b/"), (".x", "/x"), ("_s-1", "_s-1")] {
            let subject = subject_of_stream(&name(text)).unwrap();
            assert_eq!(subject.as_str(), expected);
            assert_eq!(stream_of_subject(&subject), Some(name(text)));
        }
        for text in ["order/init/1.1", "a/b c", "a%2Fb", "", "/", "é"] {
            assert_eq!(stream_of_subject(&Subject::parse(text).unwrap()), None, "{text}");
        }
        assert!(subject_of_stream(&name(&".".repeat(200))).is_ok());
        assert!(matches!(subject_of_stream(&name(&".".repeat(201))), Err(SubjectError::TooDeep { .. })));
    }

    #[test]
    fn streams_capture_their_subject_and_what_is_below() {
        let capture = default_capture(&name("orders.eu")).unwrap();
        let matches = |text| capture.matches(&Subject::parse(text).unwrap());
        assert!(["orders/eu", "orders/eu/", "orders/eu/7/x"].into_iter().all(matches));
        assert!(!["orders", "orders/eux", "orders.eu", "orders/us", "x/orders/eu"].into_iter().any(matches));
        assert_eq!(default_capture(&name("_schemas")), None);
        assert_eq!(default_capture(&name(&".".repeat(201))), None);
        let deepest = default_capture(&name(&"..".repeat(99))).unwrap();
        assert!(deepest.matches(&Subject::parse(&"/".repeat(200)).unwrap()));
        assert!(default_capture(&name(&".".repeat(200))).unwrap().matches(&Subject::parse(&"/".repeat(200)).unwrap()));
    }
}
