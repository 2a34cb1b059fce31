//! The streams of the node, by id and by name.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use firth_gateway::streams::StreamInfo;
use firth_model::ids::StreamId;
use firth_model::names::StreamName;

/// Owned by the shard; connections see the durable part of it through the view.
#[derive(Default)]
pub struct Catalog {
    by_name: BTreeMap<StreamName, StreamId>,
    by_id: HashMap<StreamId, Arc<StreamInfo>>,
    version: u64,
}

impl Catalog {
    pub fn by_name(&self, name: &str) -> Option<&Arc<StreamInfo>> {
        self.by_name.get(name).and_then(|id| self.by_id.get(id))
    }

    pub fn by_id(&self, id: StreamId) -> Option<&Arc<StreamInfo>> {
        self.by_id.get(&id)
    }

    /// All streams in the order of their names.
    pub fn all(&self) -> impl Iterator<Item = &Arc<StreamInfo>> {
        self.by_name.values().filter_map(|id| self.by_id.get(id))
    }

    /// Changes whenever a stream is made, changed or dropped.
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn put(&mut self, info: Arc<StreamInfo>) {
        self.version += 1;
        self.by_name.insert(info.name.clone(), info.id);
        self.by_id.insert(info.id, info);
    }

    pub fn remove(&mut self, id: StreamId) -> Option<Arc<StreamInfo>> {
        let info = self.by_id.remove(&id)?;
        self.version += 1;
        // The name may already belong to a stream made after this one was dropped.
        if self.by_name.get(&info.name) == Some(&id) {
            self.by_name.remove(&info.name);
        }
        Some(info)
    }
}
