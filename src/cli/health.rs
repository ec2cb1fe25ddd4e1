use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::time::timeout;

use super::connection::ConnectionArgs;
use super::output;

/// What asks has its own deadline, of which it tells nothing: this one says why.
const DEADLINE: Duration = Duration::from_secs(3);

pub(super) const EXAMPLES: &str = "\
Examples:
  peerpost health
  peerpost health --server https://chat.example.org:443 || systemctl restart peerpost";

/// Exit code 0 if the server takes calls.
pub(super) async fn run(connection: &ConnectionArgs) -> anyhow::Result<()> {
    let client = connection.anonymous()?;
    let asked = timeout(DEADLINE, client.is_serving()).await;
    let asked = asked.with_context(|| format!("no answer within {DEADLINE:?}"))?;
    if !asked? {
        bail!("{} is there, but takes no calls: it drains, or its storage fails", client.server());
    }
    output::line("serving")?;
    Ok(())
}
