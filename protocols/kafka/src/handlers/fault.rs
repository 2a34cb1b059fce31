//! Why one item of a request was not done.

use firth_gateway::refusal::Refusal;

use crate::codec::text::Str;
use crate::errors;

/// An error code, and words for a person where the response has room for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub code: i16,
    pub message: String,
}

impl Fault {
    pub fn because(code: i16, message: impl Into<String>) -> Fault {
        Fault { code, message: message.into() }
    }

    pub fn no_topic(name: &str) -> Fault {
        Fault::because(errors::UNKNOWN_TOPIC_OR_PARTITION, format!("there is no topic {name}"))
    }

    pub fn twice() -> Fault {
        Fault::because(errors::INVALID_REQUEST, "it stands in the request more than once")
    }

    pub fn text(&self) -> Option<Str> {
        Some(Str::from(self.message.as_str()))
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault { code: errors::code(&refusal), message: errors::message(&refusal) }
    }
}

/// The code and text of an outcome.
pub fn told<T>(outcome: &Result<T, Fault>) -> (i16, Option<Str>) {
    match outcome {
        Ok(_) => (errors::NONE, None),
        Err(fault) => (fault.code, fault.text()),
    }
}
