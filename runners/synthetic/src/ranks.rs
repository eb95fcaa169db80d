//! Several ranks at one job: each step's loss is drawn by one of them in turn, and a sum over all ranks tells the
//! others. Sums with zeros are exact, so any number of ranks gives the numbers of one process.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use comm::{Comm, Op, Single, TcpRing};
use protocol::Job;

use crate::checkpoint::State;

/// How long ranks wait for each other: to meet, and in every step.
const PEERS_LIMIT: Duration = Duration::from_mins(1);

/// This process among those of its job.
pub(crate) struct Ranks {
    comm: Box<dyn Comm>,
    /// Losses that this rank has drawn.
    drawn: u64,
}

impl Ranks {
    /// Meets the others, if the job has any.
    pub(crate) fn meet(job: &Job) -> Result<Ranks> {
        let comm: Box<dyn Comm> = match &job.ranks {
            None => Box::new(Single),
            Some(ranks) => {
                let ring = TcpRing::from_env(PEERS_LIMIT).context("can't meet the other ranks")?;
                if ring.world() != ranks.world_size {
                    bail!("the environment says {} ranks, the job says {}", ring.world(), ranks.world_size);
                }
                Box::new(ring)
            }
        };
        Ok(Ranks { comm, drawn: 0 })
    }

    /// Whether this is the one that says events and writes checkpoints.
    pub(crate) fn is_first(&self) -> bool {
        self.comm.rank() == 0
    }

    /// What the job runs on, for people.
    pub(crate) fn device(&self) -> String {
        match self.comm.world() {
            1 => "cpu (a law)".to_owned(),
            world => format!("cpu (a law, {world} ranks)"),
        }
    }

    /// Rank 0's state on every rank: one of them might have seen an older checkpoint.
    pub(crate) fn agree_on_start(&self, state: State) -> Result<State> {
        let mut values = [state.step as f64, state.loss_sum, state.loss_count as f64];
        self.comm.broadcast(values.as_mut_slice().into(), 0).context("can't agree on where to start")?;
        let [step, loss_sum, loss_count] = values;
        Ok(State { step: step as u64, loss_sum, loss_count: loss_count as u64 })
    }

    /// The loss of `step`, drawn by the rank whose turn it is, and whether any rank was asked to stop.
    pub(crate) fn share(&mut self, step: u64, draw: impl FnOnce() -> f64, asked_to_stop: bool) -> Result<(f64, bool)> {
        let own_turn = step % self.comm.world() as u64 == self.comm.rank() as u64;
        let loss = if own_turn { draw() } else { 0.0 };
        self.drawn += u64::from(own_turn);
        let mut values = [loss, f64::from(u8::from(asked_to_stop))];
        self.comm.all_reduce(values.as_mut_slice().into(), Op::Sum).context("can't share the loss of a step")?;
        Ok((values[0], values[1] > 0.0))
    }

    /// What this rank did, if it has peers.
    pub(crate) fn account(&self) -> Option<String> {
        let (rank, world) = (self.comm.rank(), self.comm.world());
        (world > 1).then(|| format!("rank {rank} of {world} drew {} losses", self.drawn))
    }
}
