//! Several processes at one job, a rank each: data-parallel training.
//!
//! Each rank takes its rows of a global batch ([`Ranks::rows`]) and has all parameters. The loss is that of all rows
//! (`kernels`, over a [`Comm`]). While a step's backward pass goes on, gradients are summed by reduce-scatters, so
//! that each rank has the sum for its pieces of the parameters' buffer ([`Buckets`]); each updates its pieces, whose
//! optimiser state it alone keeps (ZeRO stage 1); all-gathers bring the new parameters to all. That moves what an
//! all-reduce of the gradients would.
//!
//! Rank 0 reads and writes checkpoints, says events and measures. What it decides (where to start, how a measurement
//! ended) it tells the others; on a stop all agree in the step that is taken.

use std::io;
use std::ops::Range;
use std::time::Duration;

use kernels::comm::{Comm, CommError, Nccl, Op, TcpRing, even_counts};
use kernels::{LossError, buffer, buffer_mut};
use protocol::{Job, Recipe};
use tch::{Device, Kind, Tensor};

use crate::buckets::Buckets;
use crate::checkpoint::Position;
use crate::model::{Clip, Inputs};
use crate::optimizer::AdamW;
use crate::parameters::Parameters;
use crate::step::{Forward, StepOptions};

/// How long ranks wait for each other to come.
const MEETING_LIMIT: Duration = Duration::from_mins(5);

/// How long they wait in one call later. A peer that ends is noticed at once; this bounds the wait for one
/// that is stuck or cut off, and has to cover what rank 0 does alone: opening a pool for the first time, measuring.
const PEERS_LIMIT: Duration = Duration::from_hours(1);

/// What has to come before training.
const SPREAD: &str = "ranks have their start";

/// Why ranks can't train together.
#[derive(Debug, thiserror::Error)]
pub enum RanksError {
    /// Who this process is.
    #[error(
        "the environment variable {name} is {found}, but the job has {world} ranks: a launcher has to set it to a number below that, for each process its own"
    )]
    Place {
        /// `RANK` or `LOCAL_RANK`.
        name: &'static str,
        /// What it is.
        found: String,
        /// Ranks of the job.
        world: usize,
    },
    /// The launcher started another number of processes.
    #[error(
        "the environment variable WORLD_SIZE says {found}, the job says {world} ranks: start as many as the job says"
    )]
    World {
        /// By the environment.
        found: usize,
        /// By the job.
        world: usize,
    },
    /// Ranks see different pools.
    #[error("rank {rank} can use {found} pairs of the pool, rank 0 {first}: let all nodes see the same files")]
    Pairs {
        /// This rank.
        rank: usize,
        /// Its pairs.
        found: u64,
        /// Rank 0's.
        first: u64,
    },
    /// Another rank, or the way to it.
    #[error(transparent)]
    Comm(#[from] CommError),
    /// The loss, or its way back.
    #[error(transparent)]
    Loss(#[from] LossError),
    /// This machine.
    #[error("no thread to sum gradients on")]
    Thread(#[source] io::Error),
}

/// Which of its job's processes this one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Among all.
    pub rank: usize,
    /// Among those of its machine: the number of its GPU.
    pub local_rank: usize,
}

impl Place {
    /// As the environment says; `None`: the job has one process.
    pub fn of(job: &Job) -> Result<Option<Place>, RanksError> {
        let Some(ranks) = &job.ranks else { return Ok(None) };
        let world = ranks.world_size;
        let number = |name: &'static str| {
            let text = std::env::var(name).unwrap_or_default();
            let found = if text.is_empty() { "not set".to_owned() } else { format!("`{text}`") };
            let number = text.parse().ok().filter(|number| *number < world);
            number.ok_or(RanksError::Place { name, found, world })
        };
        Ok(Some(Place { rank: number("RANK")?, local_rank: number("LOCAL_RANK")? }))
    }
}

/// What all ranks have to start with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Start {
    /// Where training is.
    pub position: Position,
    /// Whether a checkpoint of that very position is on disk.
    pub saved: bool,
    /// Distinct pairs of the pool.
    pub pairs: u64,
    /// How often training went back after a loss spike.
    pub rollbacks: u64,
    /// Samples that were passed over then.
    pub skipped_samples: u64,
}

/// What ranks agree on in a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Agreed {
    /// Euclidean norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Whether any rank was asked to stop.
    pub stop: bool,
}

/// This process among those of its job.
pub struct Ranks {
    comm: Box<dyn Comm>,
    /// Since [`Ranks::spread`].
    buckets: Option<Buckets>,
}

impl Ranks {
    /// Meets the others, if the job has any: over TCP, on GPUs over NCCL too.
    pub fn meet(job: &Job, device: Device) -> Result<Option<Ranks>, RanksError> {
        let Some(ranks) = &job.ranks else { return Ok(None) };
        let ring = TcpRing::from_env(MEETING_LIMIT)?.with_timeout(PEERS_LIMIT);
        if ring.world() != ranks.world_size {
            return Err(RanksError::World { found: ring.world(), world: ranks.world_size });
        }
        Ok(Some(Ranks::over(ring, device)?))
    }

    /// Those of a ring.
    pub fn over(ring: TcpRing, device: Device) -> Result<Ranks, RanksError> {
        let comm: Box<dyn Comm> = if device.is_cuda() { Box::new(Nccl::new(ring)?) } else { Box::new(ring) };
        Ok(Ranks { comm, buckets: None })
    }

    /// Ranks of the job.
    pub fn world(&self) -> usize {
        self.comm.world()
    }

    /// Whether this is the one that says events and writes checkpoints.
    pub fn is_first(&self) -> bool {
        self.comm.rank() == 0
    }

    /// Rows of a global batch that are this rank's.
    pub fn rows(&self, global_batch: u64) -> Range<u64> {
        let rows = self.share(global_batch as usize);
        rows.start as u64..rows.end as u64
    }

    /// Rank 0 does it first: what that leaves in a cache, others on its machine find.
    pub fn first_then_others<T, E: From<RanksError>>(&self, act: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let barrier = || self.comm.barrier().map_err(RanksError::Comm);
        if !self.is_first() {
            barrier()?;
        }
        let done = act()?;
        if self.is_first() {
            barrier()?;
        }
        Ok(done)
    }

    /// Rank 0's start on every rank, parameters and optimiser included, of which each keeps its share of the state. The
    /// others need not see its files.
    pub fn spread(
        &mut self,
        parameters: &mut Parameters,
        optimizer: &mut AdamW,
        start: Start,
    ) -> Result<Start, RanksError> {
        let Position { step, samples_seen, evaluated_samples } = start.position;
        let evaluated = evaluated_samples.map_or(-1, |samples| samples as i64);
        let passed = [start.rollbacks, start.skipped_samples].map(|number| number as i64);
        let mut words =
            [step as i64, samples_seen as i64, evaluated, start.saved.into(), start.pairs as i64, passed[0], passed[1]];
        self.comm.broadcast(words.as_mut_slice().into(), 0)?;
        let [step, samples_seen, evaluated, saved, pairs, rollbacks, skipped] = words;
        if pairs as u64 != start.pairs {
            let rank = self.comm.rank();
            return Err(RanksError::Pairs { rank, found: start.pairs, first: pairs as u64 });
        }
        for tensor in [&mut parameters.flat, &mut optimizer.first, &mut optimizer.second] {
            self.comm.broadcast(buffer_mut(tensor), 0)?;
        }
        optimizer.steps = step as u64;
        let buckets = Buckets::new(parameters, self.comm.rank(), self.world());
        optimizer.keep(&buckets.pieces());
        self.buckets = Some(buckets);
        let evaluated_samples = u64::try_from(evaluated).ok();
        let position = Position { step: step as u64, samples_seen: samples_seen as u64, evaluated_samples };
        let (rollbacks, skipped_samples) = (rollbacks as u64, skipped as u64);
        Ok(Start { position, saved: saved != 0, rollbacks, skipped_samples, ..start })
    }

    /// L of all ranks' pairs, of which `inputs` are this one's, shape (). Sums its gradients for the step that follows.
    ///
    /// # Panics
    /// Before [`Ranks::spread`].
    pub fn gradients(&mut self, model: &Clip, inputs: &Inputs, options: StepOptions) -> Result<Tensor, RanksError> {
        let forward = Forward::new(model, inputs, options, Some(&*self.comm))?;
        let buckets = self.buckets.as_ref().expect(SPREAD);
        buckets.sum(&mut *self.comm, |take| forward.backward(take))
    }

    /// Takes a step with the gradients that were summed last, and tells the others whether it is to be the last.
    ///
    /// # Panics
    /// Before [`Ranks::spread`].
    pub fn step(
        &self,
        parameters: &mut Parameters,
        optimizer: &mut AdamW,
        (recipe, lr): (&Recipe, f64),
        threads: usize,
        stop: bool,
    ) -> Result<Agreed, RanksError> {
        let buckets = self.buckets.as_ref().expect(SPREAD);
        let squares = buckets.own.square().sum(Kind::Double).double_value(&[]);
        let mut sums = [squares, f64::from(u8::from(stop))];
        self.comm.all_reduce(sums.as_mut_slice().into(), Op::Sum)?;
        let agreed = Agreed { grad_norm: sums[0].sqrt(), stop: sums[1] > 0.0 };

        let pieces = buckets.pieces();
        optimizer.step_pieces(parameters, &pieces, &buckets.own, agreed.grad_norm, (recipe, lr), threads);
        buckets.gather_parameters(&*self.comm, &parameters.flat)?;
        Ok(agreed)
    }

    /// First and second moments of all parameters, from the pieces of all ranks.
    ///
    /// # Panics
    /// Before [`Ranks::spread`].
    pub fn moments(&self, optimizer: &AdamW, parameters: &Parameters) -> Result<[Tensor; 2], RanksError> {
        let buckets = self.buckets.as_ref().expect(SPREAD);
        let moments = [&optimizer.first, &optimizer.second].map(|own| (own, parameters.zeros_like_flat()));
        for (own, whole) in &moments {
            buckets.gather_pieces(&*self.comm, own, whole)?;
        }
        Ok(moments.map(|(_, whole)| whole))
    }

    /// Rank 0's word to all.
    pub fn told(&self, word: bool) -> Result<bool, RanksError> {
        Ok(self.told_number(i64::from(word))? != 0)
    }

    /// Rank 0's number to all.
    pub fn told_number(&self, number: i64) -> Result<i64, RanksError> {
        let mut numbers = [number];
        self.comm.broadcast(numbers.as_mut_slice().into(), 0)?;
        Ok(numbers[0])
    }

    fn share(&self, len: usize) -> Range<usize> {
        let counts = even_counts(len, self.world());
        let start = counts[..self.comm.rank()].iter().sum();
        start..start + counts[self.comm.rank()]
    }
}

/// Rows (B, E) of all ranks one after another, and where this rank's begin.
pub fn gather_rows(comm: &dyn Comm, rows: &Tensor) -> Result<(Tensor, i64), CommError> {
    let (own, width) = (rows.size()[0], rows.size()[1]);
    let mut counts = vec![0_i64; comm.world()];
    comm.all_gather([own].as_slice().into(), counts.as_mut_slice().into(), &vec![1; comm.world()])?;
    let mut all = Tensor::zeros([counts.iter().sum(), width], (rows.kind(), rows.device()));
    let elements: Vec<usize> = counts.iter().map(|rows| (rows * width) as usize).collect();
    comm.all_gather(buffer(&rows.detach().contiguous()), buffer_mut(&mut all), &elements)?;
    Ok((all, counts[..comm.rank()].iter().sum()))
}

#[cfg(test)]
mod tests;
