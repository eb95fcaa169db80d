//! The same backend with slots of its own: what runs beside a sweep takes none of that sweep's.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::{Backend, BackendError, LaunchRequest, Launched, Observed, WorkerId};

/// A backend under another name of its machine, since slots belong to a machine.
pub struct Aside {
    inner: Box<dyn Backend>,
    machine: String,
}

impl Aside {
    /// Slots beside those of `inner`, as many.
    pub fn new(inner: Box<dyn Backend>) -> Aside {
        let machine = aside_machine(inner.machine());
        Aside { inner, machine }
    }
}

/// What a machine is called where slots are beside those of others on it.
pub fn aside_machine(machine: &str) -> String {
    format!("{machine} aside")
}

#[async_trait]
impl Backend for Aside {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn host(&self) -> &str {
        self.inner.host()
    }

    fn machine(&self) -> &str {
        &self.machine
    }

    fn slots(&self) -> usize {
        self.inner.slots()
    }

    fn slot_resources(&self) -> protocol::Resources {
        self.inner.slot_resources()
    }

    async fn launch(&self, requests: &[LaunchRequest]) -> Launched {
        self.inner.launch(requests).await
    }

    async fn poll(&self, workers: &[WorkerId]) -> BTreeMap<String, Observed> {
        self.inner.poll(workers).await
    }

    async fn stop(&self, worker: &WorkerId) -> Result<(), BackendError> {
        self.inner.stop(worker).await
    }

    async fn kill_leftovers(&self, worker: &str) {
        self.inner.kill_leftovers(worker).await;
    }

    fn has_nodes(&self) -> bool {
        self.inner.has_nodes()
    }

    fn idle_shares(&self, live: &BTreeSet<&str>) -> usize {
        self.inner.idle_shares(live)
    }

    fn cancelled_by_hand(&self) -> Vec<String> {
        self.inner.cancelled_by_hand()
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }
}
