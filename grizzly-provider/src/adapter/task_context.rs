//! What a part of a statement runs in, where that is not what the statement runs in.

use std::sync::Arc;

use datafusion::{
    execution::{TaskContext, runtime_env::RuntimeEnv},
    prelude::SessionConfig,
};

/// The same task and functions with other settings and another runtime. It counts as a statement of its own: see
/// [`statement_snapshot`](super::statement_snapshot).
///
/// ```
/// use datafusion::prelude::SessionContext;
/// use grizzly_provider::adapter::task_context;
///
/// let whole = SessionContext::new().task_ctx();
/// let part = task_context(&whole, whole.session_config().clone().with_batch_size(16), whole.runtime_env());
/// assert_eq!(part.session_config().batch_size(), 16);
/// ```
pub fn task_context(context: &TaskContext, config: SessionConfig, runtime: Arc<RuntimeEnv>) -> Arc<TaskContext> {
    Arc::new(TaskContext::new(
        context.task_id(),
        context.session_id(),
        config,
        context.scalar_functions().clone(),
        context.higher_order_functions().clone(),
        context.aggregate_functions().clone(),
        context.window_functions().clone(),
        runtime,
    ))
}
