//! `entgldb sync`: a node beside a database, until it is told to stop.

mod config;
mod people;
mod quota;

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use entgldb::{Config, Event, Events, NoEvent, Node};
use serde::Serialize;

use crate::args::SyncArguments;
use crate::failure::{Exit, Failure};
use crate::output;
use crate::refusal;
use crate::signals;
use crate::terminal::Terminal;
use people::People;

/// Inputs that wait for the printing loop. Beyond that the engine counts what it leaves out.
const INPUTS_WAITING_MAX: usize = 64;
/// How often a view for people is brought up to date.
const REFRESH: Duration = Duration::from_secs(1);
/// Opening a node takes milliseconds, unless the database is locked.
const LONG_OPEN: Duration = Duration::from_secs(2);
/// How often the thread that waits for events looks whether anybody still listens.
const PATIENCE: Duration = Duration::from_secs(5);

enum Input {
    Event(Event),
    Stop,
}

/// What becomes of events.
enum View {
    Json,
    People(Box<People>),
}

pub(crate) fn run(arguments: &SyncArguments) -> Result<(), Failure> {
    let terminal = Terminal::new();
    crate::logging::start(&arguments.log, &terminal)?;
    let config = config::gather(arguments)?;
    let (sender, inputs) = sync_channel(INPUTS_WAITING_MAX);
    let runs = Arc::new(AtomicBool::new(false));
    stop_when_asked(arguments, &sender, &runs)?;
    let (node, events) = open(&config, &terminal)?;
    runs.store(true, Ordering::Relaxed);
    forward(events, sender)?;
    let view =
        if arguments.json { View::Json } else { View::People(Box::new(People::new(terminal, &config))) };
    show_until_stopped(node, view, &inputs)
}

fn stop_when_asked(
    arguments: &SyncArguments,
    sender: &SyncSender<Input>,
    runs: &Arc<AtomicBool>,
) -> Result<(), Failure> {
    let stop = || {
        let (sender, runs) = (sender.clone(), Arc::clone(runs));
        move || {
            if !runs.load(Ordering::Relaxed) {
                // The main thread may be waiting for a locked database, and nothing is lost by leaving it there.
                process::exit(Exit::Interrupted as i32);
            }
            let _ = sender.send(Input::Stop);
        }
    };
    signals::on_stop(stop())?;
    if arguments.stop_with_stdin {
        signals::on_stdin_end(stop())?;
    }
    Ok(())
}

/// Opens the node. While that takes long, somebody should know why.
fn open(config: &Config, terminal: &Terminal) -> Result<(Node, Events), Failure> {
    let database = config.database.clone();
    let (opened, wait) = channel::<()>();
    let (waiting, for_what) = (terminal.clone(), database.clone());
    let tell = move || {
        if wait.recv_timeout(LONG_OPEN) == Err(RecvTimeoutError::Timeout) {
            let database = for_what.display();
            waiting.say(format_args!(
                "waiting for {database}: another program may keep it locked (Ctrl-C gives up)"
            ));
        }
    };
    // Without a thread for it nobody is told, and it opens all the same.
    let _ = thread::Builder::new().name("waiting".to_owned()).spawn(tell);
    let node = Node::open_with_events(config.clone()).map_err(|error| refusal::of_open(&error, &database));
    drop(opened);
    node
}

/// Events and the wish to stop come through one channel, so that the loop that prints sleeps until there is something.
fn forward(events: Events, sender: SyncSender<Input>) -> Result<(), Failure> {
    let forward = move || {
        loop {
            let gone = match events.next(PATIENCE) {
                Ok(event) => sender.send(Input::Event(event)).is_err(),
                Err(NoEvent::Timeout) => false,
                Err(NoEvent::Stopped) => true,
            };
            if gone {
                return;
            }
        }
    };
    let spawned = thread::Builder::new().name("events".to_owned()).spawn(forward);
    spawned.map(drop).map_err(|error| Failure::start(format_args!("no thread for events: {error}"), ""))
}

fn show_until_stopped(node: Node, mut view: View, inputs: &Receiver<Input>) -> Result<(), Failure> {
    let mut end = show(&mut view, &node.started());
    let mut refreshed = Instant::now();
    while end.is_ok() {
        match next(&view, inputs) {
            Ok(Input::Event(Event::Started { .. })) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Input::Event(event)) => end = show(&mut view, &event).and_then(|()| failure_in(&event, &node)),
            Ok(Input::Stop) => break,
            Err(RecvTimeoutError::Disconnected) => end = Err(ended_unexpectedly(&node)),
        }
        if let View::People(people) = &mut view
            && refreshed.elapsed() >= REFRESH
        {
            people.refresh(&node.status());
            refreshed = Instant::now();
        }
    }
    if let View::People(people) = &mut view {
        people.stopping();
    }
    node.close();
    drain(&mut view, inputs);
    end
}

fn next(view: &View, inputs: &Receiver<Input>) -> Result<Input, RecvTimeoutError> {
    match view {
        View::Json => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        View::People(_) => inputs.recv_timeout(REFRESH),
    }
}

/// What the engine still has to say while it stops. Whether it can be shown no longer matters.
fn drain(view: &mut View, inputs: &Receiver<Input>) {
    while let Ok(input) = inputs.recv_timeout(REFRESH) {
        if let Input::Event(event) = input {
            let last = matches!(event, Event::Stopped);
            if show(view, &event).is_err() || last {
                return;
            }
        }
    }
}

fn show(view: &mut View, event: &Event) -> Result<(), Failure> {
    match view {
        View::Json => Ok(output::json_line(&Line { event, at_ms: wall_ms() })?),
        View::People(people) => {
            people.tell(event);
            Ok(())
        }
    }
}

/// An event on a line of its own, with the time at which it was seen.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    event: &'a Event,
    at_ms: u64,
}

fn wall_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

/// A store that the engine does not open again ends the command; somebody has to look after the disk.
fn failure_in(event: &Event, node: &Node) -> Result<(), Failure> {
    match event {
        Event::StoreError { message, retry: false } => Err(store_failed(node, message)),
        _ => Ok(()),
    }
}

fn ended_unexpectedly(node: &Node) -> Failure {
    match node.status().last_error {
        Some(error) => store_failed(node, &error),
        None => Failure::run(
            "the engine ended unexpectedly",
            "start it again with --log debug and report what it says",
        ),
    }
}

fn store_failed(node: &Node, message: &str) -> Failure {
    Failure::run(
        format_args!("the database {} failed: {message}", node.status().database.display()),
        format_args!(
            "`entgldb doctor {}` says what is damaged; mend that or bring back a backup, then start again: what was committed \
             is kept",
            node.status().database.display()
        ),
    )
}
