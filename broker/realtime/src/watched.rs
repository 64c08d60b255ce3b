//! Whether anybody listens, for publishers that would rather not work for nobody.

use crate::groups::GroupError;
use crate::key::Key;
use crate::tier::Realtime;

impl Realtime {
    /// Whether a hub has a connection on any node.
    ///
    /// # Errors
    /// When that can't be known now.
    pub async fn is_watched(&self, hub: &str) -> Result<bool, GroupError> {
        self.has_members(&Key::hub(&hub.to_lowercase())).await
    }
}
