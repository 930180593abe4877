//! Scans among the nodes of a plan that travels. Everything else in it is DataFusion's own and knows how to travel.

use std::sync::Arc;

use datafusion::{
    common::{Result, not_impl_err},
    execution::TaskContext,
    physical_plan::ExecutionPlan,
};
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use grizzly_provider::{Grizzly, adapter::GrizzlyScanExec};

/// Writes scans of a database, and reads them on another node's handle of it.
#[derive(Debug)]
pub(super) struct ScanCodec {
    db: Grizzly,
}

impl ScanCodec {
    pub(super) fn new(db: &Grizzly) -> Self {
        Self { db: db.clone() }
    }
}

impl PhysicalExtensionCodec for ScanCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        _inputs: &[Arc<dyn ExecutionPlan>],
        _context: &TaskContext,
        _converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(GrizzlyScanExec::from_bytes(&self.db, bytes)?))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        _converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let Some(scan) = node.downcast_ref::<GrizzlyScanExec>() else {
            return not_impl_err!("{} cannot be sent to another node", node.name());
        };
        bytes.extend(scan.to_bytes()?);
        Ok(())
    }
}
