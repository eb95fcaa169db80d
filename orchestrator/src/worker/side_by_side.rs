//! The process that holds one task of a Slurm array in which several workers run side by side: it starts them, each
//! with its share of the allocation's GPUs and CPUs, passes signals on, ends one of them when the backend says so, and
//! says of each how it ended.
//!
//! Slurm signals this process, and counts it as the job. Its workers die with it. The files through which it and the
//! backend speak: `backend/slurm/shares.rs`.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::task::JoinSet;

use super::stop::{StopSignal, Told};
use super::supervise::file;
use super::{SideBySide, UNDELIVERED, WorkerError, log, runner};
use crate::backend::slurm_shares::{self as shares, Attempts, Member};

/// Between two looks for workers that are to end.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Exit code where nothing was started: the allocation is not what was asked for.
const NO_SHARES: u8 = 78;
/// Variables by which Slurm says which GPUs a job has, one or several of them.
const GPU_VARIABLES: [&str; 4] =
    ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ZE_AFFINITY_MASK"];

/// Runs the workers of a task to their ends. Gives the exit code: 0 if all left with 0, else the highest of theirs, a
/// killed one's being 128 and the signal.
pub(super) async fn run(cli: &SideBySide) -> Result<u8, WorkerError> {
    let text = std::fs::read_to_string(&cli.attempts).map_err(file("read the attempts in", &cli.attempts))?;
    let attempts = Attempts::read(&text);
    let members = attempts.of_task(cli.task);
    let array = cli.attempts.parent().unwrap_or(Path::new("."));
    shares::prepare(array).map_err(file("make folders in", array))?;
    let gpus = match gpu_shares(members.len(), cli.gpus, |name| std::env::var(name).ok()) {
        Ok(gpus) => gpus,
        Err(problem) => {
            log::line(&problem);
            // Where people look for what became of a job.
            for member in members {
                let _ = worker_log(member).and_then(|mut log| writeln!(log, "{problem}"));
            }
            return Ok(NO_SHARES);
        }
    };
    let cpus = cpu_shares(members.len(), cli.cpus);
    // What a killed worker leaves falls to this process.
    runner::adopt_orphans();
    let stop = StopSignal::listen()?;
    let mut group = Group::new(array);
    let told = shares::stops(array);
    for (index, member) in members.iter().enumerate() {
        if told.contains_key(&member.token) {
            group.note(&member.token, "was to end before it had begun".to_owned());
            continue;
        }
        let share = Share { variables: &gpus[index], cpus: cpus.get(index) };
        match start(cli, member, &share) {
            Ok(child) => group.add(member, child),
            Err(error) => {
                group.note(&member.token, format!("could not be started: {error}"));
                group.code = group.code.max(UNDELIVERED);
            }
        }
    }
    Ok(group.until_all_have_ended(&stop).await)
}

/// What one worker gets of the allocation.
struct Share<'a> {
    variables: &'a [(&'static str, String)],
    /// `None`: whatever the kernel gives it.
    cpus: Option<&'a CpuSet>,
}

fn worker_log(member: &Member) -> io::Result<File> {
    std::fs::create_dir_all(&member.folder)?;
    OpenOptions::new().create(true).append(true).open(member.folder.join("worker.log"))
}

fn start(cli: &SideBySide, member: &Member, share: &Share<'_>) -> io::Result<tokio::process::Child> {
    let log = worker_log(member)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--attempt").arg(&member.token).args(&cli.arguments);
    if cli.spool_only {
        command.arg("--spool-only").arg(&member.folder);
    }
    command.envs(share.variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    runner::die_with_worker(&mut command);
    if let Some(cpus) = share.cpus {
        pin(&mut command, *cpus);
    }
    command.spawn()
}

/// Several processes that spread their threads over the same CPUs wait for one another.
#[expect(unsafe_code, reason = "the affinity is that of the process which calls, so it is set between fork and exec")]
fn pin(command: &mut Command, cpus: CpuSet) {
    // SAFETY: sched_setaffinity is a plain system call and touches no memory of ours but the set, which is moved in.
    unsafe {
        command.pre_exec(move || {
            // Slower without it, but no worse.
            let _ = sched_setaffinity(Pid::from_raw(0), &cpus);
            Ok(())
        });
    }
}

/// The workers that run, and what is still to be said of those that have ended.
struct Group<'a> {
    array: &'a Path,
    /// Those that run, by name.
    pids: BTreeMap<String, Pid>,
    waiting: JoinSet<(String, io::Result<ExitStatus>)>,
    /// Ends that could not be written yet.
    unsaid: BTreeMap<String, String>,
    code: u8,
}

impl<'a> Group<'a> {
    fn new(array: &'a Path) -> Group<'a> {
        Group { array, pids: BTreeMap::new(), waiting: JoinSet::new(), unsaid: BTreeMap::new(), code: 0 }
    }

    fn add(&mut self, member: &Member, mut child: tokio::process::Child) {
        let pid = Pid::from_raw(child.id().unwrap_or_default().cast_signed());
        log::line(&format!("started the worker of attempt {} as process {pid}", member.token));
        self.pids.insert(member.token.clone(), pid);
        let token = member.token.clone();
        self.waiting.spawn(async move { (token, child.wait().await) });
    }

    async fn until_all_have_ended(mut self, stop: &StopSignal) -> u8 {
        let mut told = false;
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut asked: BTreeMap<String, bool> = BTreeMap::new();
        loop {
            tokio::select! {
                biased;
                signal = stop.wait(), if !told => {
                    told = true;
                    let signal = match signal {
                        Told::Stop => Signal::SIGTERM,
                        Told::TimeOver => Signal::SIGUSR1,
                    };
                    log::line(&format!("{signal}: passed on to {} workers", self.pids.len()));
                    for pid in self.pids.values() {
                        let _ = kill(*pid, signal);
                    }
                }
                ended = self.waiting.join_next() => {
                    let Some(ended) = ended else { break };
                    let Ok((token, status)) = ended else { continue };
                    self.pids.remove(&token);
                    self.ended(&token, status);
                }
                _ = look.tick() => {
                    let asks = shares::stops(self.array);
                    for (token, kill_it) in asks.iter().filter(|(token, kill)| asked.get(*token) != Some(kill)) {
                        if let Some(pid) = self.pids.get(token) {
                            let signal = if *kill_it { Signal::SIGKILL } else { Signal::SIGTERM };
                            log::line(&format!("{signal}: for the worker of attempt {token} alone"));
                            let _ = kill(*pid, signal);
                        }
                    }
                    asked = asks;
                    self.say_the_rest();
                    runner::kill_and_reap_orphans();
                }
            }
        }
        self.say_the_rest();
        self.code
    }

    fn ended(&mut self, token: &str, status: io::Result<ExitStatus>) {
        use std::os::unix::process::ExitStatusExt;
        // Its runner dies with it; what that had started does not.
        runner::kill_leftovers(token);
        runner::kill_and_reap_orphans();
        let (how, code) = match status.map(|status| (status.signal(), status.code())) {
            Ok((Some(number), _)) => {
                let name =
                    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |name| name.to_string());
                (format!("was killed by {name}"), u8::try_from(128 + number).unwrap_or(UNDELIVERED))
            }
            Ok((None, code)) => {
                let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(UNDELIVERED);
                (format!("left with exit code {code}"), code)
            }
            Err(error) => (format!("has an end that can't be seen ({error})"), UNDELIVERED),
        };
        self.code = self.code.max(code);
        self.note(token, how);
    }

    fn note(&mut self, token: &str, how: String) {
        log::line(&format!("the worker of attempt {token} {how}"));
        self.unsaid.insert(token.to_owned(), how);
        self.say_the_rest();
    }

    /// Writes ends down; a full disk is waited for as long as others run.
    fn say_the_rest(&mut self) {
        let array = self.array;
        self.unsaid.retain(|token, how| shares::note_end(array, token, how).is_err());
    }
}

/// Variables for each worker, so that it sees its own GPUs alone. `Err`: there are too few, in words.
fn gpu_shares(
    workers: usize,
    gpus: usize,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<Vec<(&'static str, String)>>, String> {
    if gpus == 0 {
        return Ok(vec![Vec::new(); workers]);
    }
    let needed = workers * gpus;
    let mut shares: Vec<Vec<(&'static str, String)>> = vec![Vec::new(); workers];
    for name in GPU_VARIABLES {
        let Some(list) = variable(name).filter(|list| !list.is_empty()) else { continue };
        let devices: Vec<&str> = list.split(',').map(str::trim).collect();
        if devices.len() < needed {
            return Err(format!(
                "{workers} workers side by side need {needed} GPUs, {gpus} each, and {name} is `{list}`: ask for as many \
                 (`gpus`), or for fewer jobs side by side (`side_by_side`)"
            ));
        }
        for (share, devices) in shares.iter_mut().zip(devices.chunks(gpus)) {
            share.push((name, devices.join(",")));
        }
    }
    if shares.iter().all(Vec::is_empty) {
        // Slurm hides no GPU by name here: those that can be seen count from 0.
        for (index, share) in shares.iter_mut().enumerate() {
            let devices: Vec<String> = (index * gpus..(index + 1) * gpus).map(|device| device.to_string()).collect();
            share.push((GPU_VARIABLES[0], devices.join(",")));
        }
    }
    Ok(shares)
}

/// Sets of CPUs for the workers; none where those that we may use are not all ours, or too few.
fn cpu_shares(workers: usize, cpus: usize) -> Vec<CpuSet> {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else { return Vec::new() };
    let allowed: Vec<usize> = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu).unwrap_or(false)).collect();
    // Where Slurm confines nobody, each job of a node would take the first ones.
    let ours = std::env::var("SLURM_CPUS_ON_NODE").ok().and_then(|count| count.parse::<usize>().ok());
    if ours != Some(allowed.len()) {
        return Vec::new();
    }
    let place = |cpu: usize| {
        let read = |name: &str| {
            let path = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{name}"));
            std::fs::read_to_string(path).ok()?.trim().parse::<i64>().ok()
        };
        (read("physical_package_id"), read("core_id"))
    };
    split_cpus(&allowed, workers, cpus, place)
        .iter()
        .map(|cpus| {
            let mut set = CpuSet::new();
            for &cpu in cpus {
                let _ = set.set(cpu);
            }
            set
        })
        .collect()
}

/// CPUs for each worker, as many for each, neighbours together: hardware threads of a core, cores of a socket. None if
/// there are fewer than `cpus` for each.
fn split_cpus<P: Ord>(allowed: &[usize], workers: usize, cpus: usize, place: impl Fn(usize) -> P) -> Vec<Vec<usize>> {
    let each = allowed.len() / workers.max(1);
    if each < cpus.max(1) {
        return Vec::new();
    }
    let mut sorted = allowed.to_vec();
    sorted.sort_by_key(|&cpu| (place(cpu), cpu));
    sorted.chunks(each).take(workers).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_sees_its_own_gpus() {
        let shares = |workers, gpus, variables: &[(&str, &str)]| {
            let variable =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
            gpu_shares(workers, gpus, variable)
        };
        let cuda = |devices: &str| vec![("CUDA_VISIBLE_DEVICES", devices.to_owned())];
        assert_eq!(shares(2, 0, &[("CUDA_VISIBLE_DEVICES", "NoDevFiles")]), Ok(vec![Vec::new(); 2]), "left alone");
        let four = [("CUDA_VISIBLE_DEVICES", "2,3,6,7")];
        assert_eq!(shares(4, 1, &four), Ok(["2", "3", "6", "7"].map(cuda).to_vec()));
        assert_eq!(shares(2, 2, &four), Ok(["2,3", "6,7"].map(cuda).to_vec()));
        assert_eq!(shares(3, 1, &four), Ok(["2", "3", "6"].map(cuda).to_vec()), "a whole node has more");
        let parts = [("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")];
        assert_eq!(shares(2, 1, &parts), Ok(["MIG-a", "MIG-b"].map(cuda).to_vec()));
        assert_eq!(shares(2, 2, &[]), Ok(["0,1", "2,3"].map(cuda).to_vec()), "Slurm names none");
        let both = [("ROCR_VISIBLE_DEVICES", "0,1"), ("GPU_DEVICE_ORDINAL", "0,1")];
        let second = vec![("ROCR_VISIBLE_DEVICES", "1".to_owned()), ("GPU_DEVICE_ORDINAL", "1".to_owned())];
        assert_eq!(shares(2, 1, &both).map(|mut shares| shares.remove(1)), Ok(second));
        let said = shares(3, 2, &four).expect_err("too few");
        assert!(said.contains("need 6 GPUs, 2 each, and CUDA_VISIBLE_DEVICES is `2,3,6,7`"), "{said}");
    }

    #[test]
    fn threads_of_a_core_stay_together_and_nobody_gets_too_few() {
        // Two cores of two hardware threads, numbered as Linux does.
        let core = |cpu: usize| cpu % 2;
        assert_eq!(split_cpus(&[0, 1, 2, 3], 2, 2, core), [[0, 2], [1, 3]]);
        assert_eq!(split_cpus(&[4, 5, 6, 7, 8], 2, 1, |_| 0), [[4, 5], [6, 7]]);
        assert_eq!(split_cpus(&[0, 1, 2], 2, 2, core), [[0; 0]; 0]);
        assert_eq!(split_cpus(&[], 0, 1, core), [[0; 0]; 0]);
    }
}
