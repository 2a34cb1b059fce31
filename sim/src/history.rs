//! What happened in a run, one line of JSON an event.

use std::fmt::{Arguments, Display};
use std::fs::File;
use std::io::Write;

/// Writes to the file that `FIRTH_SIM_HISTORY` names, or nowhere.
pub struct History {
    file: Option<File>,
    seed: u64,
    life: u32,
    step: u64,
}

impl History {
    /// A run that begins; the file grows with every run.
    pub fn of_seed(seed: u64) -> History {
        let path = std::env::var_os("FIRTH_SIM_HISTORY");
        let file = path.map(|path| File::options().create(true).append(true).open(path).expect("the path can be written"));
        History { file, seed, life: 0, step: 0 }
    }

    pub fn begins(&mut self, life: u32) {
        (self.life, self.step) = (life, 0);
    }

    pub fn step(&mut self) {
        self.step += 1;
    }

    /// `fields` is the inside of a JSON object, without the names that every event has.
    pub fn note(&mut self, event: &str, fields: Arguments<'_>) {
        let Some(file) = &mut self.file else { return };
        let (seed, life, step) = (self.seed, self.life, self.step);
        let line = format!("{{\"seed\":{seed},\"life\":{life},\"step\":{step},\"event\":\"{event}\",{fields}}}\n");
        file.write_all(line.as_bytes()).expect("the history can be written");
    }

    pub fn refused(&mut self, what: &str, refusal: impl Display) {
        self.note("refused", format_args!("\"what\":\"{what}\",\"refusal\":\"{refusal}\""));
    }
}
