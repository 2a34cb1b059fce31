//! What sessions have in flight of groups that nobody runs.
//!
//! How that ends is written to the group's cursor at once, under its name: the node may stop before anybody runs the group again.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

use firth_gateway::cursors::{CursorMove, Settle, Settlement};
use firth_model::filter::Filter;
use firth_model::ids::{Offset, PartitionId};
use firth_model::spelling::Spelling;

use crate::codec::text::Text;
use crate::codec::topic::shared_parts;

/// Where a message of a group lies.
pub type Place = (PartitionId, Offset);

/// What sessions have in flight of one group.
#[derive(Default)]
pub struct Held {
    pub by_client: HashMap<Text, Vec<Place>>,
    /// Of sessions that ended.
    pub ended: Vec<Offset>,
}

impl Held {
    /// The session is no more: what is to be settled of it.
    pub fn end(&mut self, client: &Text) -> Vec<Place> {
        let places = self.by_client.remove(client).unwrap_or_default();
        self.ended.extend(places.iter().map(|(_, offset)| *offset));
        places
    }
}

/// The cursor of a group: parts behind their lengths, so that no two groups have one name.
pub fn cursor_name(share: &str, filter: &Filter) -> Bytes {
    let mut name = BytesMut::new();
    name.put_slice(b"mqtt-share/");
    name.put_slice(format!("{}/{share}/", share.len()).as_bytes());
    name.put_slice(filter.as_bytes());
    name.freeze()
}

/// Settles messages of a shared subscription's group, whether anybody runs it or not. `None`: the text names no group.
pub fn settle_of(text: &Text, places: &[Place]) -> Option<CursorMove> {
    let (share, filter) = shared_parts(text).ok()??;
    let name = cursor_name(share, &Spelling::Mqtt.filter(filter.as_bytes()).ok()?);
    let settle = |&(partition, from): &Place| Settle { partition, what: Settlement::Done { from, to: from.plus(1) } };
    Some(CursorMove::SettleOf { name, settles: places.iter().map(settle).collect() })
}
