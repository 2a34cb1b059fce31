//! Who else is concerned by what is produced to a named stream.

use std::sync::Arc;

use bytes::Bytes;

use firth_model::batch::Batch;
use firth_model::ids::Offset;
use firth_model::subject::Subject;

use crate::live::{RouteCache, Routes};
use crate::message::{Message, OWN_HEADERS};
use crate::request::Store;
use crate::stored;
use crate::streams::StreamInfo;

/// A message of a produced batch that live subscriptions are to be shown: the place of its batch among those of the request, the message,
/// and who is subscribed.
pub type LiveProduced = (usize, Arc<Message>, Arc<Routes>);

/// A checked batch on its way to a stream.
pub struct Produced<'a> {
    pub stream: &'a StreamInfo,
    pub batch: &'a Batch,
    /// A record of it names a subject.
    pub names_subject: bool,
    /// Its producer waits until it is durable.
    pub guaranteed: bool,
}

impl Produced<'_> {
    pub(crate) fn concern(
        &self,
        subject: &Subject,
        cache: &mut dyn RouteCache,
        publisher: u64,
        at: usize,
        captured: &mut Vec<Store>,
        live: &mut Vec<LiveProduced>,
    ) {
        let own = cache.routes(subject);
        if !self.names_subject && !self.is_wanted(&own) {
            return;
        }
        // A batch that cannot be read back was refused before.
        let Ok(records) = stored::messages(&with_base(self.batch), Offset(0), subject) else { return };
        for record in records {
            let mut message = record.message;
            let mut routes = if message.subject == *subject { own.clone() } else { cache.routes(&message.subject) };
            // What a stream does not capture may not be said in its name: it is plain data then.
            if !routes.captures.iter().any(|capture| capture.stream.id == self.stream.id) {
                message.subject = subject.clone();
                routes = own.clone();
            }
            if !self.is_wanted(&routes) {
                continue;
            }
            // What is Firth's own is not a producer's to say.
            message.headers.retain(|(name, _)| !name.starts_with(OWN_HEADERS));
            message.publisher = publisher;
            message.guaranteed = self.guaranteed;
            message.retain = false;
            let message = Arc::new(message);
            if self.is_captured(&routes) {
                let batch = stored::batch([&*message]);
                captured.push(Store {
                    message: message.clone(),
                    batch,
                    routes: routes.clone(),
                    origin: Some(self.stream.id),
                    receipt: None,
                });
            }
            if !routes.live.is_empty() {
                live.push((at, message, routes));
            }
        }
    }

    fn is_wanted(&self, routes: &Routes) -> bool {
        !routes.live.is_empty() || self.is_captured(routes)
    }

    fn is_captured(&self, routes: &Routes) -> bool {
        let hidden_too = self.guaranteed;
        let counts = |capture: &crate::live::Capture| !capture.by_name && capture.stream.id != self.stream.id;
        routes.captures.iter().any(|capture| counts(capture) && (hidden_too || !capture.stream.policy.hidden))
    }
}

/// The batch with base offset 0, whatever its producer wrote there.
fn with_base(batch: &Batch) -> Bytes {
    if batch.header.base_offset == 0 {
        return batch.bytes().clone();
    }
    let mut bytes = batch.bytes().to_vec();
    bytes[..8].fill(0);
    Bytes::from(bytes)
}
