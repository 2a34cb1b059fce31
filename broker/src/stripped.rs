//! Batches as readers get them: without the removed records.

use bytes::Bytes;

use firth_gateway::refusal::Refusal;
use firth_gateway::view::Records;
use firth_model::batch::BatchHeader;
use firth_model::cleaning::{CleanError, Cleaned, Verdict, clean, empty};
use firth_model::ids::Offset;
use firth_model::removed::RunSet;

use crate::partition_view::PartitionView;

/// The batches without what the partition lost. What a reader gets always leads it on: if nothing is left, the last batch is given
/// without records, so that its offsets are stepped over.
pub fn live_records(partition: &PartitionView, records: Records) -> Result<Records, Refusal> {
    let Some(removed) = partition.removed() else { return Ok(records) };
    let mut live = Records::default();
    let mut stepped_over = None;
    for (batch, position) in records.batches.into_iter().zip(records.positions) {
        match strip(&batch, &removed) {
            Ok(Cleaned::Whole) => live.push(batch, position),
            Ok(Cleaned::Rewritten(rest)) => live.push(rest, position),
            Ok(Cleaned::Gone) => {
                stepped_over = Some((batch, position));
                continue;
            }
            Err(error) => {
                tracing::error!(partition = partition.id.0, %error, "read refused: a stored batch cannot be walked");
                return Err(Refusal::Damaged);
            }
        }
        stepped_over = None;
    }
    if let Some((batch, position)) = stepped_over {
        live.push(empty(&batch).map_err(|_| Refusal::Damaged)?, position);
    }
    Ok(live)
}

/// What is left of one stored batch. Its records are walked only if some of them, not all, are removed.
pub fn strip(batch: &Bytes, removed: &RunSet) -> Result<Cleaned, CleanError> {
    let header = BatchHeader::parse(batch).map_err(CleanError::Batch)?;
    let base = u64::try_from(header.base_offset).unwrap_or(0);
    let offsets = base..Offset(base).plus(header.offset_count()).0;
    if !removed.overlaps(offsets.clone()) {
        return Ok(Cleaned::Whole);
    }
    if removed.covers(offsets) {
        return Ok(Cleaned::Gone);
    }
    clean(batch, None, &mut |record| if removed.contains(record.offset) { Verdict::Remove } else { Verdict::Keep })
}
