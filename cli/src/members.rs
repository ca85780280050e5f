//! `entgldb members`: who takes part, by what this node has heard, and removing one that will not come back.

use std::path::Path;

use console::style;
use entgldb::{CommandError, ControlError, MemberInfo, NodeId, Offline, Request, read_members, request};
use serde_json::json;

use crate::args::{MembersAction, MembersArguments, RemoveArguments};
use crate::calendar::Calendar;
use crate::failure::Failure;
use crate::inspection;
use crate::output::{self, count, plain};
use crate::refusal;
use crate::status::short;
use crate::tables::refused;

pub(crate) fn run(arguments: &MembersArguments) -> Result<(), Failure> {
    match &arguments.action {
        Some(MembersAction::Remove(remove)) => self::remove(remove),
        None => show(&arguments.place.database()?, arguments.json),
    }
}

fn read(database: &Path) -> Result<Vec<MemberInfo>, Failure> {
    read_members(database).map_err(|error| inspection::unusable(database, &error))
}

fn show(database: &Path, json: bool) -> Result<(), Failure> {
    let members = read(database)?;
    if json {
        return members.iter().try_for_each(|member| Ok(output::json_line(member)?));
    }
    let calendar = Calendar::new();
    for member in &members {
        output::line(in_words(member, &calendar))?;
    }
    output::note(count(members.len() as u64, "member"));
    Ok(())
}

fn in_words(member: &MemberInfo, calendar: &Calendar) -> String {
    let name = style(plain(&member.name)).bold();
    let when = calendar.local(member.said_ms);
    let state = match &member.removed_by {
        Some(by) => style(format!("removed by {} on {when}", short(by))).yellow().to_string(),
        None if member.this => "this node".to_owned(),
        None if member.waiting == 0 => format!("{} as of {when}", style("holds everything").green()),
        None => format!("last heard {when}; {} kept for it", count(member.waiting, "entry")),
    };
    format!("{name}  {}  {}; {state}", member.node, member.collections.join(", "))
}

fn remove(arguments: &RemoveArguments) -> Result<(), Failure> {
    let database = &arguments.place.database;
    let member = find(database, &arguments.member)?;
    let node: NodeId = member.node.parse().map_err(|error| {
        Failure::run(
            format_args!("{:?}: {error}", member.node),
            "the list of members is damaged: `entgldb doctor` says more",
        )
    })?;
    let asked = Request::RemoveMember { node: member.node.clone() };
    match request(&arguments.place.data_dir(), &asked, &mut |_| {}) {
        Ok(_) => {}
        Err(ControlError::NotRunning) => remove_offline(arguments, node)?,
        Err(error) => return Err(refused(&error)),
    }
    if arguments.json {
        output::json_line(&json!({ "removed": member.node, "name": member.name }))?;
    } else {
        let name = plain(&member.name);
        output::note(format_args!("Removed {name} ({}): no history is kept for it.", short(&member.node)));
    }
    Ok(())
}

fn find(database: &Path, wanted: &str) -> Result<MemberInfo, Failure> {
    let members = read(database)?;
    let mut found =
        members.into_iter().filter(|member| !wanted.is_empty() && member.node.starts_with(wanted));
    match (found.next(), found.next()) {
        (Some(member), None) => Ok(member),
        (None, _) => Err(Failure::start(
            format_args!("no member has an id that begins with {wanted:?}"),
            "`entgldb members` shows the members and their ids",
        )),
        (Some(_), Some(_)) => Err(Failure::start(
            format_args!("several members have ids that begin with {wanted:?}"),
            "give more of the id",
        )),
    }
}

/// No process runs the node, so that the others learn of it later.
fn remove_offline(arguments: &RemoveArguments, node: NodeId) -> Result<(), Failure> {
    let place = &arguments.place;
    let offline = Offline::open(&place.database, &place.data_dir(), &[], &[]);
    let mut offline = offline.map_err(|error| refusal::of_offline(&error, &place.database))?;
    offline.remove_member(node).map_err(|error| match error {
        CommandError::StoreFailed => {
            Failure::run(&error, format_args!("`entgldb doctor {}` says more", place.database.display()))
        }
        error => Failure::start(error, "`entgldb members` shows the members and their ids"),
    })?;
    offline.close().map_err(|error| inspection::unreadable(&place.database, &error))?;
    output::note("The node does not run: the others learn of it when it does.");
    Ok(())
}
