//! What there is at present, for an operator.
//!
//! In: a host, and where it keeps its data. Out: every few seconds, [telemetry](crate::telemetry)'s gauges.

use std::path::PathBuf;
use std::sync::Weak;

use tokio_util::sync::CancellationToken;

use super::Host;
use crate::certificate::InUse;
use crate::telemetry::{self, Present};

/// Tells what there is, again and again.
pub(crate) async fn keep_current(
    host: Weak<Host>,
    data_dir: PathBuf,
    certificate: Option<InUse>,
    stop: CancellationToken,
) {
    let mut every = tokio::time::interval(telemetry::EVERY);
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = stop.cancelled() => return,
        }
        let Some(host) = host.upgrade() else { return };
        telemetry::present(Present {
            calls: host.calls_in_session(),
            participants: host.stages.participants(),
            unwritten: host.unwritten.captions(),
            expires_at: certificate.as_ref().and_then(InUse::expires_at),
        });
        let data_dir = data_dir.clone();
        // A panic there is a fault of its own; nothing else depends on it.
        let _ = tokio::task::spawn_blocking(move || telemetry::look(&data_dir)).await;
        let backlog = tokio::select! {
            backlog = host.read(|change| Ok(change.store.backlog()?)) => backlog,
            () = stop.cancelled() => return,
        };
        // Where the database does not say, its own log does.
        let Ok(backlog) = backlog else { continue };
        telemetry::waiting((backlog.deliveries, backlog.oldest_event), (backlog.uploads, backlog.oldest_run_end));
        telemetry::given_up(backlog.dead_letters);
    }
}
