//! Numbers that stand for topics on one connection.
//!
//! MQTT 5.0 section 3.3.2.3.4.

use std::collections::HashMap;
use std::num::NonZeroU16;

use firth_model::subject::Subject;

/// Aliases that the client gives.
#[derive(Debug, Default)]
pub struct Given {
    max: u16,
    subjects: Vec<Option<Subject>>,
}

impl Given {
    pub fn up_to(max: u16) -> Given {
        Given { max, subjects: Vec::new() }
    }

    /// False: the alias is larger than allowed.
    pub fn set(&mut self, alias: NonZeroU16, subject: Subject) -> bool {
        let at = usize::from(alias.get());
        if alias.get() > self.max {
            return false;
        }
        if self.subjects.len() < at {
            self.subjects.resize(at, None);
        }
        self.subjects[at - 1] = Some(subject.detached());
        true
    }

    /// `None`: the alias stands for nothing.
    pub fn get(&self, alias: NonZeroU16) -> Option<&Subject> {
        self.subjects.get(usize::from(alias.get()) - 1)?.as_ref()
    }
}

/// Aliases that the client is given: its first topics get one.
#[derive(Debug, Default)]
pub struct Taken {
    max: u16,
    by_subject: HashMap<Subject, NonZeroU16>,
}

impl Taken {
    pub fn up_to(max: u16) -> Taken {
        Taken { max, by_subject: HashMap::new() }
    }

    /// The alias of a topic, and whether the client knows it.
    pub fn of(&mut self, subject: &Subject) -> Option<(NonZeroU16, bool)> {
        if self.max == 0 {
            return None;
        }
        if let Some(alias) = self.by_subject.get(subject) {
            return Some((*alias, true));
        }
        let count = u16::try_from(self.by_subject.len()).ok().filter(|count| *count < self.max)?;
        NonZeroU16::new(count + 1).map(|alias| (alias, false))
    }

    /// The client was told what the alias stands for.
    pub fn told(&mut self, alias: NonZeroU16, subject: &Subject) {
        self.by_subject.insert(subject.detached(), alias);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_stand_for_the_last_topic_they_were_given() {
        let alias = |number| NonZeroU16::new(number).expect("not zero");
        let subject = |text| Subject::parse(text).expect("a subject");
        let mut given = Given::up_to(2);
        assert!(given.get(alias(2)).is_none());
        assert!(given.set(alias(2), subject("a")) && given.set(alias(2), subject("b")));
        assert_eq!(given.get(alias(2)), Some(&subject("b")));
        assert!(!given.set(alias(3), subject("c")));
        let mut taken = Taken::up_to(1);
        assert_eq!(taken.of(&subject("a")), Some((alias(1), false)));
        taken.told(alias(1), &subject("a"));
        assert_eq!(taken.of(&subject("a")), Some((alias(1), true)));
        assert_eq!(taken.of(&subject("b")), None);
    }
}
