use tokio::time::timeout;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use super::{Client, Error};

impl Client {
    /// Whether the server takes calls: not while it drains, nor while its storage fails. It is asked
    /// once, on a connection of its own, for as long as a call may take.
    ///
    /// # Errors
    /// Those of any call.
    pub async fn is_serving(&self) -> Result<bool, Error> {
        let deadline = self.options().call_deadline;
        let mut health = HealthClient::new(self.own_channel());
        // The whole server.
        let check = health.check(HealthCheckRequest { service: String::new() });
        let answer = timeout(deadline, check).await;
        let answer = answer.map_err(|_| Error::DeadlineExceeded { deadline })?;
        let answer = answer.map_err(|status| self.error(&status))?.into_inner();
        Ok(answer.status() == ServingStatus::Serving)
    }
}
