//! The client on a simulated network, in simulated time: connections that are cut, held and delayed,
//! and a server host that crashes and comes back, all of it from one seed.
//!
//! `PEERPOST_SIMULATIONS=1000 cargo test --test suite simulation` runs through more seeds.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use peerpost::client::{
    Client, Event, Follow, FollowOptions, Message, Options, OutgoingMessage, PageRequest, Start,
    Token,
};
use turmoil::Sim;
use turmoil::net::TcpStream;

use crate::model_reference::{NAMES, Person};
use crate::simulated_service::{ModelService, PORT, RealService, SimulatedService, serve};

/// Seeds in an ordinary run of the suite.
const SIMULATIONS_DEFAULT: u64 = 3;

/// What each sender sends to bob, spread over the time of the faults.
const MESSAGES_EACH: u8 = 40;
const SENDERS: [Person; 2] = [0, 2];
const BOB: Person = 1;

const FAULTS_LAST: Duration = Duration::from_secs(40);
const STEPS_BETWEEN_FAULTS: u64 = 400;

/// Far more simulated time than the last retry needs.
const SIMULATION_MAX: Duration = Duration::from_mins(10);

/// All hosts but the server's.
const CLIENTS: [&str; 4] = ["ann", "cyd", "bob-1", "bob-2"];
const SERVER: &str = "server";

/// Everything random in a simulation. (Marsaglia's xorshift64*)
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}

/// What happened, a line each, with the simulated time.
#[derive(Clone, Default)]
struct Log(Rc<RefCell<String>>);

impl Log {
    fn note(&self, at: Duration, who: &str, what: impl std::fmt::Display) {
        let _ = writeln!(self.0.borrow_mut(), "{:>6} {who}: {what}", at.as_millis());
    }

    /// Within the simulation.
    fn say(&self, who: &str, what: impl std::fmt::Display) {
        self.note(turmoil::sim_elapsed().expect("within a simulation"), who, what);
    }

    fn text(&self) -> String {
        self.0.borrow().clone()
    }
}

/// What the clients have at the end.
#[derive(Default)]
struct Outcome {
    /// As their senders were answered, sender by sender.
    answered: Vec<Vec<Message>>,
    followed: Vec<Vec<Message>>,
    /// Bob's mailbox, read page by page at the end.
    mailbox: Vec<Message>,
}

fn client(service: &impl SimulatedService, person: Person, seed: u64) -> Client {
    let options = Options::default()
        .connect_timeout(Duration::from_secs(1))
        .call_deadline(Duration::from_secs(2))
        .retry_deadline(Duration::from_secs(5))
        .backoff(Duration::from_millis(50), Duration::from_secs(1))
        .keepalive(Duration::from_secs(1), Duration::from_secs(1))
        .jitter_seed(seed);
    let connect = |uri: http::Uri| async move {
        let host = uri.host().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        TcpStream::connect((host, uri.port_u16().unwrap_or(PORT))).await
    };
    let token = Token::parse(&service.token(person)).expect("a token");
    let client = Client::connect_through(&format!("http://{SERVER}:{PORT}"), options, connect);
    client.expect("a server").with_token(&token)
}

/// Sends the sender's messages one after the other, each until it is answered.
async fn send_all(client: Client, person: Person, mut random: Random, log: Log) -> Vec<Message> {
    let name = NAMES[person];
    let mut answered = Vec::new();
    for number in 0..MESSAGES_EACH {
        tokio::time::sleep(Duration::from_millis(random.below(1_500))).await;
        let text = format!("{name} {number}");
        let message =
            OutgoingMessage::new(NAMES[BOB], text).with_request_id(format!("id-{number}"));
        loop {
            match client.send_message(message.clone()).await {
                Ok(message) => {
                    log.say(name, format_args!("{number} is {}", message.sequence));
                    answered.push(message);
                    break;
                }
                Err(error) => {
                    log.say(name, format_args!("{number}: {error}"));
                    assert!(error.is_retriable(), "{error}");
                }
            }
        }
    }
    answered
}

/// Follows bob's mailbox until it has everything that is sent.
async fn follow_all(mut events: Follow, who: &'static str, log: Log) -> Vec<Message> {
    let mut followed = Vec::new();
    while followed.len() < SENDERS.len() * usize::from(MESSAGES_EACH) {
        let event = events.next_event().await.expect("it never ends by itself");
        match event.expect("only what connecting again mends") {
            Event::Message(message) => {
                log.say(who, format_args!("got {}", message.sequence));
                followed.push(message);
            }
            Event::Started { after_sequence, last_sequence, .. } => {
                log.say(who, format_args!("started after {after_sequence} of {last_sequence}"));
            }
            other => log.say(who, format_args!("{other:?}")),
        }
    }
    followed
}

async fn read_all(client: &Client) -> Vec<Message> {
    let mut messages: Vec<Message> = Vec::new();
    loop {
        let cursor = messages.last().map_or(0, |last| last.sequence);
        let page = client.messages(PageRequest::after(cursor)).await.expect("the network is whole");
        messages.extend(page.messages);
        if !page.has_more {
            return messages;
        }
    }
}

/// What is wrong at the moment.
struct Faults {
    random: Random,
    links: [Link; CLIENTS.len()],
    is_server_down: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Whole,
    Cut,
    /// What is sent waits.
    Held,
    /// Requests arrive, answers do not.
    CutBack,
    Slow,
}

impl Faults {
    /// Changes one thing: something that was whole fails, or what failed is whole again.
    fn change(&mut self, sim: &mut Sim<'_>, service: &impl SimulatedService, log: &Log) {
        let at = usize::try_from(self.random.below(1 + CLIENTS.len() as u64)).expect("few");
        if at == CLIENTS.len() {
            self.change_server(sim, service, log);
        } else if self.links[at] == Link::Whole {
            let faults = [Link::Cut, Link::Held, Link::CutBack, Link::CutBack, Link::Slow];
            let fault = faults[usize::try_from(self.random.below(5)).expect("few")];
            self.set(sim, at, fault, log);
        } else {
            self.set(sim, at, Link::Whole, log);
        }
    }

    fn set(&mut self, sim: &mut Sim<'_>, at: usize, link: Link, log: &Log) {
        let client = CLIENTS[at];
        match (self.links[at], link) {
            (Link::Cut, _) => sim.repair(SERVER, client),
            (Link::Held, _) => sim.release(SERVER, client),
            (Link::CutBack, _) => sim.repair_oneway(SERVER, client),
            (Link::Slow, _) => set_latency(sim, client, 1),
            (Link::Whole, Link::Cut) => sim.partition(SERVER, client),
            (Link::Whole, Link::Held) => sim.hold(SERVER, client),
            (Link::Whole, Link::CutBack) => sim.partition_oneway(SERVER, client),
            (Link::Whole, Link::Slow) => set_latency(sim, client, 700),
            (Link::Whole, Link::Whole) => {}
        }
        self.links[at] = link;
        log.note(sim.elapsed(), client, format_args!("the link is {link:?}"));
    }

    fn change_server(&mut self, sim: &mut Sim<'_>, service: &impl SimulatedService, log: &Log) {
        if self.is_server_down {
            sim.bounce(SERVER);
        } else {
            sim.crash(SERVER);
            service.crashed();
        }
        self.is_server_down = !self.is_server_down;
        log.note(sim.elapsed(), SERVER, format_args!("down: {}", self.is_server_down));
    }

    /// Everything is whole again.
    fn end(&mut self, sim: &mut Sim<'_>, service: &impl SimulatedService, log: &Log) {
        for at in 0..CLIENTS.len() {
            self.set(sim, at, Link::Whole, log);
        }
        if self.is_server_down {
            self.change_server(sim, service, log);
        }
    }
}

fn set_latency(sim: &Sim<'_>, client: &str, milliseconds: u64) {
    sim.set_link_latency(SERVER, client, Duration::from_millis(milliseconds));
}

/// Runs one simulation to its end, and returns what the clients have and what happened.
fn simulate<S: SimulatedService>(service: S, seed: u64) -> (Outcome, String, Rc<S>) {
    let (service, log) = (Rc::new(service), Log::default());
    let outcome = Rc::new(RefCell::new(Outcome::default()));
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(1024)
        .simulation_duration(SIMULATION_MAX)
        .build();
    let serving = Rc::clone(&service);
    sim.host(SERVER, move || serve(serving.open()));
    for (number, sender) in (1..).zip(SENDERS) {
        let (client_seed, log, outcome) = (seed ^ number << 32, log.clone(), Rc::clone(&outcome));
        let service = Rc::clone(&service);
        sim.client(NAMES[sender], async move {
            let client = client(&*service, sender, client_seed);
            let answered = send_all(client, sender, Random::new(client_seed), log).await;
            outcome.borrow_mut().answered.push(answered);
            Ok(())
        });
    }
    for (number, device) in (11..).zip(&CLIENTS[SENDERS.len()..]) {
        let (client_seed, log, outcome) = (seed ^ number << 32, log.clone(), Rc::clone(&outcome));
        let service = Rc::clone(&service);
        sim.client(*device, async move {
            let client = client(&*service, BOB, client_seed);
            let options = FollowOptions::default().heartbeat_interval(Duration::from_secs(1));
            let followed = follow_all(client.follow(Start::After(0), options), device, log).await;
            let now = turmoil::sim_elapsed().expect("within a simulation");
            tokio::time::sleep(FAULTS_LAST.saturating_sub(now)).await;
            let mailbox = read_all(&client).await;
            let mut outcome = outcome.borrow_mut();
            outcome.followed.push(followed);
            outcome.mailbox = mailbox;
            Ok(())
        });
    }

    let links = [Link::Whole; CLIENTS.len()];
    let mut faults = Faults { random: Random::new(seed), links, is_server_down: false };
    for step in 1.. {
        let at = Duration::from_millis(step);
        if at == FAULTS_LAST {
            faults.end(&mut sim, &*service, &log);
        } else if at < FAULTS_LAST && step % STEPS_BETWEEN_FAULTS == 0 {
            faults.change(&mut sim, &*service, &log);
        }
        match sim.step() {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => panic!("seed {seed}: {error}\n{}", log.text()),
        }
    }
    drop(sim);
    (outcome.take(), log.text(), service)
}

/// Every message is in bob's mailbox once, in its sender's order, and both devices saw just that.
#[track_caller]
fn assert_nothing_skipped_or_repeated(seed: u64, outcome: &Outcome, log: &str) {
    let texts = |messages: &[Message]| -> Vec<String> {
        messages.iter().map(|it| it.body.as_text().expect("text").to_owned()).collect()
    };
    let said = || format!("seed {seed}\n{log}");
    let dense: Vec<i64> = (1..=outcome.mailbox.len().cast_signed() as i64).collect();
    let sequences: Vec<i64> = outcome.mailbox.iter().map(|it| it.sequence).collect();
    assert_eq!(sequences, dense, "{}", said());
    assert_eq!(outcome.followed.len(), 2, "{}", said());
    for followed in &outcome.followed {
        assert_eq!(followed, &outcome.mailbox, "{}", said());
    }
    assert_eq!(outcome.mailbox.len(), SENDERS.len() * usize::from(MESSAGES_EACH), "{}", said());
    for answered in &outcome.answered {
        let sender = &answered[0].from_user;
        let of_sender = outcome.mailbox.iter().filter(|it| it.from_user == *sender);
        let of_sender: Vec<Message> = of_sender.cloned().collect();
        let sent: Vec<_> = (0..MESSAGES_EACH).map(|number| format!("{sender} {number}")).collect();
        assert_eq!(texts(&of_sender), sent, "{}", said());
        let ids = |messages: &[Message]| -> Vec<String> {
            messages.iter().map(|it| it.message_id.clone()).collect()
        };
        assert_eq!(ids(answered), ids(&of_sender), "{}", said());
    }
}

fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("PEERPOST_SIMULATIONS").ok();
    0..count.map_or(SIMULATIONS_DEFAULT, |count| count.parse().expect("a number of simulations"))
}

/// The store's threads are not of the simulation, so that a seed does not repeat a run to the letter:
/// what holds must hold anyhow.
#[test]
fn a_real_service_on_a_bad_network_stores_once_and_its_followers_miss_nothing() {
    for seed in seeds() {
        let (outcome, log, _) = simulate(RealService::new(), seed);
        assert_nothing_skipped_or_repeated(seed, &outcome, &log);
    }
}

#[test]
fn the_same_seed_gives_the_same_log_and_another_seed_another() {
    let mut repeated = 0;
    let mut logs = Vec::new();
    for seed in seeds() {
        let (outcome, log, service) = simulate(ModelService::new(), seed);
        assert_nothing_skipped_or_repeated(seed, &outcome, &log);
        let (_, again, _) = simulate(ModelService::new(), seed);
        assert_eq!(log, again, "seed {seed}");
        assert!(!logs.contains(&log), "seed {seed} is like another");
        assert!(log.contains("Reconnecting"), "seed {seed} cut nothing off");
        repeated += service.repeated();
        logs.push(log);
    }
    assert!(repeated > 0, "no answer was lost, so that no send had to be found again");
}
