//! Keeps attempts away from machines that fail.

use std::collections::BTreeSet;

use super::Notice;
use super::round::RoundDriver;
use crate::backend::LaunchRequest;
use crate::store::StoreError;

impl RoundDriver<'_> {
    /// Says in each request which machines to avoid.
    pub(super) async fn avoid_failing_nodes(
        &mut self,
        requests: &mut [LaunchRequest],
        tell: &mut impl FnMut(Notice<'_>),
    ) -> Result<(), StoreError> {
        if !self.backend.has_nodes() {
            return Ok(());
        }
        let tokens: Vec<String> = requests.iter().map(|request| request.token.clone()).collect();
        let failing = self.store.nodes_failing(self.backend.name(), &tokens).await?;
        for request in requests {
            let of_this = failing.iter().filter(|node| node.token.as_ref().is_none_or(|token| *token == request.token));
            request.avoid = of_this.map(|failing| failing.node.clone()).collect();
        }
        let of_all: BTreeSet<String> =
            failing.into_iter().filter(|failing| failing.token.is_none()).map(|failing| failing.node).collect();
        for node in of_all.difference(&self.avoided) {
            tell(Notice::NodeAvoided { node });
        }
        self.avoided = of_all;
        Ok(())
    }
}
