//! The watchdog of a job of several processes: ranks tell each other by UDP that they live, beside MPI and without ever calling it.
//!
//! Rank 0 answers each beat with one of its own. A rank that is heard no more for `--stall-timeout` is named, with what all were doing,
//! and the job ends with exit code 4: MPI itself notices a pulled cable after minutes and a stopped process never. Who lives and is slow
//! is only reported. Beats carry the wish to stop as well, so that a signal reaches ranks that do not talk to its receiver for long.

mod beat;
mod watch;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::stop;
use crate::comm::{Communicator, Progress, by_rank, launcher_rank, launcher_size};
use crate::error::{Error, ErrorKind, Result};
use beat::Beat;
use watch::{Finding, Watch};

/// How often a rank says that it lives, in jobs of up to so many ranks; in larger ones more rarely, as rank 0 answers all.
const BEAT_EVERY: Duration = Duration::from_millis(500);
const MANY: u32 = 1024;

/// Ranks from this one on leave without words when the first ones have spoken, or have left.
const SPEAKERS: usize = 5;

/// MPI may take so many timeouts until ranks can be watched: it starts slowly on many nodes.
const START: u32 = 5;

/// A way to rank 0 that has brought nothing for so long is not the only one that is tried any more.
const OTHER_WAYS_AFTER: Duration = Duration::from_secs(2);

/// Launchers were seen to drop lines written just before the end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// The ranks have come together.
static ARE_TOGETHER: AtomicBool = AtomicBool::new(false);

/// What a rank tells all others before beats can reach it: its computer, and of rank 0, the job and where it listens.
struct Hello {
    host: String,
    job: u64,
    ways: Vec<SocketAddr>,
}

impl Hello {
    fn to_text(&self) -> String {
        let ways: Vec<String> = self.ways.iter().map(SocketAddr::to_string).collect();
        format!("{}\n{}\n{}", self.host, self.job, ways.join(" "))
    }

    fn from_text(text: &str) -> Option<Hello> {
        let mut lines = text.split('\n');
        let (host, job) = (lines.next()?.to_string(), lines.next()?.parse().ok()?);
        let ways = lines.next()?.split_whitespace().map(|way| way.parse().ok()).collect::<Option<_>>()?;
        Some(Hello { host, job, ways })
    }
}

/// Starts to watch, until the process ends. Nothing is watched where ranks are threads, in a world of one, and with a `timeout` of zero.
/// Collective; the timeout is that of rank 0.
///
/// # Errors
/// `Comm`: from the exchange of addresses. That a rank cannot listen is said, and no error.
pub fn start(comm: &Communicator, timeout: Duration) -> Result<()> {
    let mut timeout_ms = [timeout.as_millis() as u64];
    comm.broadcast(&mut timeout_ms, 0)?;
    if comm.size() == 1 || !comm.has_processes() || timeout_ms[0] == 0 {
        ARE_TOGETHER.store(true, Ordering::Relaxed);
        return Ok(());
    }
    let host = comm.node_name();
    let socket = listen().map_err(|e| say(&format!("rank {} on {host} cannot be watched: {e}", comm.rank()))).ok();
    let hello = Hello {
        job: name_of_job(&host),
        ways: socket.as_ref().filter(|_| comm.is_root()).map(ways_to).unwrap_or_default(),
        host,
    };
    let all = comm.all_gather_bytes(hello.to_text().as_bytes())?;
    let of_rank = |rank| str::from_utf8(all.of_rank(rank)).ok().and_then(Hello::from_text);
    let hellos = (0..comm.size()).map(of_rank).collect::<Option<Vec<_>>>();
    let mut hellos = comm.agree(hellos.ok_or_else(|| Error::internal("addresses of ranks were not received")))?;
    ARE_TOGETHER.store(true, Ordering::Relaxed);
    let Some(socket) = socket else { return Ok(()) };
    let root = &mut hellos[0];
    let same_host = root.host == hello.host;
    let is_v4 = socket.local_addr().is_ok_and(|own| own.is_ipv4());
    root.ways.retain(|way| (same_host || !way.ip().is_loopback()) && (way.is_ipv4() || !is_v4));
    let (job, ways) = (root.job, std::mem::take(&mut root.ways));
    let timeout = Duration::from_millis(timeout_ms[0]);
    let every = BEAT_EVERY * (comm.size() as u32).div_ceil(MANY);
    let began = Instant::now();
    let peers = Peers {
        rank: comm.rank(),
        job,
        hosts: hellos.into_iter().map(|hello| hello.host).collect(),
        watch: Watch::new(comm.rank(), comm.size(), timeout, every, Duration::ZERO),
        every,
        progress: comm.progress(),
        socket,
        ways,
        heard_by: vec![None; if comm.is_root() { comm.size() } else { 1 }],
        heard_at: None,
        began,
    };
    if let Err(e) = std::thread::Builder::new().name("watchdog".to_string()).spawn(|| peers.run()) {
        say(&format!("rank {} cannot watch its peers: {e}", comm.rank()));
    }
    Ok(())
}

/// Ends this process if ranks cannot be watched after some timeouts: MPI waits for ever for a rank that was stopped before or while it
/// started. For a process of a launcher, before MPI is started. Not collective.
pub fn expect(timeout: Duration) {
    let (Some((size, _)), Some(rank)) = (launcher_size(), launcher_rank()) else { return };
    if size == 1 || timeout.is_zero() {
        return;
    }
    let late = timeout * START;
    let wait = move || {
        // In ticks: time in which the job was suspended is not counted. One of the first ranks speaks.
        let ticks = 300 + 20 * rank.min(SPEAKERS) as u32;
        for _ in 0..ticks {
            std::thread::sleep(late / 300);
        }
        if rank >= SPEAKERS && !ARE_TOGETHER.load(Ordering::Relaxed) {
            signal_hook::low_level::exit(ErrorKind::Comm.exit_code());
        }
        if !ARE_TOGETHER.load(Ordering::Relaxed) {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            end_with(&format!(
                "rank {rank} of {size} on {}: the ranks have not come together for {} s: one was stopped, lost or cut off while MPI \
                 started, or takes longer than {START} times --stall-timeout",
                host.trim(),
                late.as_secs_f64()
            ));
        }
    };
    // Where no thread can be started, that is said later.
    let _ = std::thread::Builder::new().name("start".to_string()).spawn(wait);
}

/// Any port, of all addresses of this computer.
fn listen() -> io::Result<UdpSocket> {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
}

/// Where this socket can be reached, as far as this computer knows.
fn ways_to(socket: &UdpSocket) -> Vec<SocketAddr> {
    let Ok(own) = socket.local_addr() else { return Vec::new() };
    let found = if_addrs::get_if_addrs().unwrap_or_default();
    let ips = found.iter().filter(|interface| !interface.is_link_local()).map(|interface| interface.ip());
    ips.filter(|ip| own.is_ipv6() || ip.is_ipv4()).map(|ip| SocketAddr::new(ip, own.port())).collect()
}

/// A number that no other job on these computers is likely to have.
fn name_of_job(host: &str) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let hash = blake3::hash(format!("{host} {} {since}", std::process::id()).as_bytes());
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("8 of 32 bytes"))
}

/// A line on stderr, whether it can be written or not.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "consort: {line}");
}

struct Peers {
    rank: usize,
    job: u64,
    /// Of all ranks.
    hosts: Vec<String>,
    watch: Watch,
    /// Between two beats.
    every: Duration,
    progress: Progress,
    socket: UdpSocket,
    /// To rank 0.
    ways: Vec<SocketAddr>,
    /// Where each rank was last heard from; of other ranks than 0, only rank 0 in the first place.
    heard_by: Vec<Option<SocketAddr>>,
    heard_at: Option<Duration>,
    began: Instant,
}

impl Peers {
    fn run(mut self) {
        let mut next = Duration::ZERO;
        loop {
            let now = self.began.elapsed();
            if now >= next {
                // After a pause of the process, one beat, not those that were missed.
                next = now + self.every;
                if self.beat(now) {
                    return;
                }
            }
            self.listen_until(next);
        }
    }

    fn own(&self) -> Beat {
        let stop = stop::requested().map_or(0, |cause| cause as u8);
        Beat { job: self.job, rank: self.rank as u32, stop, ends: false, doing: self.progress.look() }
    }

    /// Says that this rank lives, and looks at the others. True: this was the last one.
    fn beat(&mut self, now: Duration) -> bool {
        let own = self.own();
        let is_over = own.doing.is_over;
        if self.rank > 0 {
            let heard = self.heard_at.is_some_and(|at| now.saturating_sub(at) < OTHER_WAYS_AFTER.max(self.every * 4));
            let ways = self.heard_by[0].iter().filter(|_| heard);
            let ways: Vec<SocketAddr> = if heard { ways.copied().collect() } else { self.ways.clone() };
            ways.into_iter().for_each(|way| self.send(&own, way));
        }
        self.watch.hear(own, now);
        // What came while this process was stopped, before its silence is judged.
        if self.socket.set_nonblocking(true).is_ok() {
            // Bounded: whoever floods this port shall not keep it from its work.
            let most = 64 + 64 * self.hosts.len();
            let _ = (0..most).try_for_each(|_| self.hear_one());
            if self.socket.set_nonblocking(false).is_err() {
                say(&format!("rank {} cannot watch its peers any more", self.rank));
                return true;
            }
        }
        if let Some(cause) = stop::Cause::from_code(self.watch.stop()) {
            stop::request(cause);
        }
        if is_over {
            return true;
        }
        for finding in self.watch.look(now) {
            self.act(finding);
        }
        false
    }

    fn send(&self, beat: &Beat, to: SocketAddr) {
        let to = match (to.ip(), self.socket.local_addr()) {
            (IpAddr::V4(ip), Ok(own)) if own.is_ipv6() => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            _ => to,
        };
        // A packet that is not sent is one that is lost: the next one follows.
        let _ = self.socket.send_to(&beat.to_bytes(), to);
    }

    fn listen_until(&mut self, next: Duration) {
        loop {
            let left = next.saturating_sub(self.began.elapsed());
            if left < Duration::from_millis(1) || self.socket.set_read_timeout(Some(left)).is_err() {
                std::thread::sleep(left);
                return;
            }
            if self.hear_one().is_none() {
                return;
            }
        }
    }

    /// Takes in one packet, of whomever; None: there is none.
    fn hear_one(&mut self) -> Option<()> {
        let mut bytes = [0; 1024];
        let (length, from) = match self.socket.recv_from(&mut bytes) {
            Ok(received) => received,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return None,
            // Such as the news that nobody listens at a way that was tried.
            Err(_) => return Some(()),
        };
        let Some(beat) = Beat::from_bytes(&bytes[..length], self.job) else { return Some(()) };
        if beat.ends {
            signal_hook::low_level::exit(ErrorKind::Comm.exit_code());
        }
        let now = self.began.elapsed();
        if let Some(place) = self.heard_by.get_mut(beat.rank as usize) {
            *place = Some(from);
            self.heard_at = Some(now);
        }
        self.watch.hear(beat, now);
        if self.rank == 0 {
            self.send(&self.own(), from);
        }
        Some(())
    }

    fn act(&self, finding: Finding) {
        let and_then = "the job ends; if it was given --checkpoint, the same command goes on from the last one";
        match finding {
            Finding::Lost { .. } if self.rank >= SPEAKERS => {
                signal_hook::low_level::exit(ErrorKind::Comm.exit_code());
            }
            Finding::Lost { rank, silent } => {
                let last = self.watch.doing(rank).map_or("", |doing| &doing.last);
                let last = if last.is_empty() { "none" } else { last };
                self.end(&format!(
                    "rank {rank} of {} on {} has not been heard for {:.1} s: stopped, lost or cut off (--stall-timeout {} s); its last \
                     finished call: {last}; {}; {and_then}",
                    self.hosts.len(),
                    self.hosts[rank],
                    silent.as_secs_f64(),
                    self.watch.timeout().as_secs_f64(),
                    self.places()
                ))
            }
            Finding::NeverHeard(ranks) => {
                let named: Vec<String> =
                    ranks.iter().take(8).map(|&rank| format!("rank {rank} on {}", self.hosts[rank])).collect();
                let more = if ranks.len() > 8 { format!(" and {} more", ranks.len() - 8) } else { String::new() };
                say(&format!(
                    "rank {} on {} hears nothing of {}{more}: UDP seems to be blocked between the hosts; whether they live is left to \
                     MPI and the launcher (--stall-timeout 0: not watched, without this line)",
                    self.rank,
                    self.hosts[self.rank],
                    named.join(", ")
                ));
            }
            Finding::Stalled => {
                say(&format!(
                    "no rank has finished a call for {} s: {}",
                    self.watch.timeout().as_secs_f64(),
                    self.places()
                ));
            }
            Finding::Stuck(waited) => self.end(&format!(
                "all ranks have waited for one another for {:.0} s: {}; {and_then}",
                waited.as_secs_f64(),
                self.places()
            )),
        }
    }

    /// What each rank was last heard to do.
    fn places(&self) -> String {
        let place = |rank| match self.watch.doing(rank) {
            None if self.rank > 0 => "watched by rank 0".to_string(),
            None => "not heard".to_string(),
            Some(doing) if doing.is_over => "at its end".to_string(),
            Some(doing) if !doing.current.is_empty() => format!("in {}", doing.current),
            Some(doing) if doing.last.is_empty() => "computing".to_string(),
            Some(doing) => format!("computing after {}", doing.last),
        };
        by_rank(&(0..self.hosts.len()).map(place).collect::<Vec<_>>())
    }

    /// Ends the job: this process at once, the others as they hear it, or by the launcher.
    fn end(&self, why: &str) -> ! {
        let ends = Beat { ends: true, ..self.own() };
        self.heard_by.iter().flatten().filter(|_| self.rank == 0).for_each(|way| self.send(&ends, *way));
        end_with(why)
    }
}

/// Says why, and ends this process and its launcher.
fn end_with(why: &str) -> ! {
    say(why);
    end_launcher();
    std::thread::sleep(LAST_WORDS);
    // Without what libraries do at the end: they would wait for the rank that is lost.
    signal_hook::low_level::exit(ErrorKind::Comm.exit_code())
}

/// Sees to it that a launcher beside this process comes to its end. Open MPI's tells its daemons to stop, and waits for the one that a
/// pulled cable has cut off for as long as the system keeps a connection: minutes. It is given some seconds, and not asked to end, since
/// it may crash on its way out then.
fn end_launcher() {
    const SCRIPT: &str = r#"sleep 5; [ "$(cat "/proc/$0/comm")" = "$1" ] && kill -KILL "$0""#;
    if let Some((pid, name)) = launcher() {
        let mut later = std::process::Command::new("sh");
        later.args(["-c", SCRIPT, &pid, &name]).process_group(0);
        // Where no process can be started, the launcher is left to itself.
        let _ = later.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
}

/// Number and name of the launcher that this process descends from, if it runs on this computer.
fn launcher() -> Option<(String, String)> {
    let mut pid = std::os::unix::process::parent_id().to_string();
    // MPICH's has a process of its own between itself and the ranks.
    for _ in 0..3 {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim().to_string());
        let name = field("Name:")?;
        if ["mpirun", "orterun", "prterun", "mpiexec"].iter().any(|known| name.starts_with(known)) {
            return Some((pid, name));
        }
        pid = field("PPid:")?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_rank_0_listens_is_understood_again() {
        let ways = vec!["127.0.0.1:99".parse().unwrap(), "[2001:db8::1]:7".parse().unwrap()];
        for ways in [ways, Vec::new()] {
            let read = Hello::from_text(&Hello { host: "n1".to_string(), job: u64::MAX, ways: ways.clone() }.to_text());
            let read = read.unwrap();
            assert_eq!((read.host.as_str(), read.job, read.ways), ("n1", u64::MAX, ways));
        }
        assert!(Hello::from_text("n1\nx\n").is_none());
    }

    #[test]
    fn a_socket_can_be_reached_by_what_is_said_of_it() {
        let (root, other) = (listen().unwrap(), listen().unwrap());
        let ways = ways_to(&root);
        assert!(ways.iter().any(|way| way.ip().is_loopback()), "{ways:?}");
        root.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let way = ways.iter().find(|way| way.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap();
        let way = match other.local_addr().unwrap().is_ipv6() {
            true => SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), way.port()),
            false => *way,
        };
        other.send_to(b"beat", way).unwrap();
        let mut bytes = [0; 8];
        assert_eq!(root.recv_from(&mut bytes).unwrap().0, 4);
    }
}
