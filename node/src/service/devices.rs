//! Devices are put out, given other roles, and the keys change; and who did what of this, when.

use std::sync::Arc;

use coffer_protocol::grants::{Fate, Former, GrantBody, Membership, Recipient, Role};
use coffer_protocol::identity::{DeviceId, Hash};
use coffer_protocol::keys::Keyring;
use coffer_protocol::recovery::RecoveryKey;

use super::Node;
use super::running::{Running, commit_error};
use crate::control::{
    Answer, ControlError, DeviceRevoked, ErrorKind, LogRow, Question, Reply, Session, Warning,
};
use crate::vault::lock_rule::Seen;
use crate::vault::{Act, Core, Manage};

/// Doctype of the accounts whose passwords a vault keeps.
const ACCOUNTS: &str = "io.cozy.accounts";
/// Accounts that a report names.
const ACCOUNTS_NAMED: usize = 50;

/// A device, as a person means it.
struct Meant {
    id: DeviceId,
    name: String,
    role: Role,
}

/// Finds the device that `name` means: its name, or the beginning of its id. With `also_out` also one of which it is
/// undecided whether it is out.
fn find(core: &Core, name: &str, also_out: bool) -> Result<Meant, ControlError> {
    let state = core.state();
    let membership = &state.membership;
    let undecided = |former: &&Former| also_out && former.is_undecided();
    let former = membership.former().iter();
    let out = former
        .filter(|(_, former)| undecided(former))
        .map(|(id, former)| (id, former.device.role));
    let present = membership.devices().iter().map(|(id, d)| (id, d.role));
    let mut found = present.chain(out).filter_map(|(id, role)| {
        let called = name_of(membership, &state.keyring, id);
        let is_it = called == name || name.len() >= 6 && id.to_string().starts_with(name);
        is_it.then_some(Meant {
            id: *id,
            name: called,
            role,
        })
    });
    let Some(first) = found.next() else {
        return Err(ControlError::new(
            ErrorKind::NotFound,
            format!("no device of this vault is called {name}"),
        ));
    };
    match found.next() {
        None => Ok(first),
        Some(_) => Err(ControlError::conflict(format!(
            "several devices are called {name}: give the beginning of the id that `coffer device list` shows"
        ))),
    }
}

fn name_of(membership: &Membership, keyring: &Keyring, id: &DeviceId) -> String {
    membership
        .device_name(id, keyring)
        .unwrap_or_else(|| id.to_string())
}

/// The words, if somebody typed them; they must be this vault's.
pub(super) fn read_words(
    core: &Core,
    words: Option<&str>,
) -> Result<Option<RecoveryKey>, ControlError> {
    let Some(words) = words else { return Ok(None) };
    let usage = |text: String| ControlError::new(ErrorKind::Usage, text);
    let key = RecoveryKey::from_words(words).map_err(|error| usage(error.to_string()))?;
    if core.state().membership.recovery() != Some(&key.public()) {
        return Err(usage("these are not the words of this vault".into()));
    }
    Ok(Some(key))
}

/// `device revoke`.
pub async fn revoke(
    node: &Arc<Node>,
    name: String,
    undo: Vec<String>,
    words: Option<String>,
    session: &mut Session,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let undone: Vec<Hash> = undo
        .iter()
        .map(|id| {
            id.parse().map_err(|_| {
                ControlError::new(
                    ErrorKind::Usage,
                    format!("{id} is not an id that `coffer device log` shows"),
                )
            })
        })
        .collect::<Result<_, _>>()?;
    let (meant, report, words) = running
        .vault
        .inspect(move |core| {
            let meant = find(core, &name, true)?;
            let words = read_words(core, words.as_deref())?;
            let report = report(core, &meant);
            Ok::<_, ControlError>((meant, report, words))
        })
        .await
        .map_err(commit_error)??;
    if meant.id == running.vault.device() {
        return Err(ControlError::conflict(
            "a device is revoked from another one: run this command there",
        ));
    }
    let question = Question::RevokeDevice {
        name: meant.name.clone(),
        device: meant.id.to_string(),
    };
    if session.ask(question).await? != Answer::Yes {
        return Err(ControlError::new(ErrorKind::Refused, "nothing was revoked"));
    }
    let act = Act::Revoke {
        device: meant.id,
        undone,
    };
    carry_out(&running, act, words).await?;
    let mut report = report;
    report.changed_ms = crate::vault::wall_ms();
    report.told = running
        .vault
        .inspect(|core| {
            let devices = core.state().membership.devices().keys();
            devices.filter(|id| core.is_connected(id)).count() as u64
        })
        .await
        .map_err(commit_error)?;
    if meant.role.holds_keys() {
        let index = running.index.clone();
        let accounts = tokio::task::spawn_blocking(move || {
            index.list(Some(ACCOUNTS), ("", ""), ACCOUNTS_NAMED as u64)
        });
        // What cannot be looked up now is left out: the device is out all the same.
        if let Ok(Ok(accounts)) = accounts.await {
            report.accounts = accounts.into_iter().map(|(_, id)| id).collect();
        }
    }
    Ok(Reply::DeviceRevoked(report))
}

fn report(core: &Core, meant: &Meant) -> DeviceRevoked {
    let held = core.held(meant.id);
    DeviceRevoked {
        name: meant.name.clone(),
        device: meant.id.to_string(),
        held_keys: meant.role.holds_keys(),
        last_heard_ms: held.map(|held| held.at_ms),
        had_everything: held.is_some_and(|held| {
            held.awaited == 0 && held.entries.covers_clock(&core.state().clock)
        }),
        accounts: Vec::new(),
        changed_ms: 0,
        told: 0,
    }
}

/// `device role`.
pub async fn role(
    node: &Arc<Node>,
    name: String,
    role: String,
    words: Option<String>,
) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let given = match role.as_str() {
        "owner" => Role::Owner,
        "member" => Role::Member,
        "reader" => Role::Reader,
        other => {
            return Err(ControlError::new(
                ErrorKind::Usage,
                format!("there is no role {other}: a device is owner, member or reader"),
            ));
        }
    };
    let (meant, words) = running
        .vault
        .inspect(move |core| {
            let words = read_words(core, words.as_deref())?;
            Ok::<_, ControlError>((find(core, &name, false)?, words))
        })
        .await
        .map_err(commit_error)??;
    if meant.role != given {
        let act = Act::Role {
            device: meant.id,
            role: given,
        };
        carry_out(&running, act, words).await?;
    }
    Ok(Reply::DeviceRole {
        name: meant.name,
        device: meant.id.to_string(),
        role,
    })
}

/// `relock`.
pub async fn rotate(node: &Arc<Node>) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    carry_out(&running, Act::Rotate, None).await?;
    let devices = running
        .vault
        .inspect(|core| {
            let devices = core.state().membership.devices().values();
            devices.filter(|device| device.role.holds_keys()).count() as u64
        })
        .await
        .map_err(commit_error)?;
    Ok(Reply::KeyRotated { devices })
}

async fn carry_out(
    running: &Running,
    act: Act,
    words: Option<RecoveryKey>,
) -> Result<(), ControlError> {
    let manage = Manage { act, words };
    running.vault.manage(manage).await.map_err(commit_error)
}

/// `device log`.
pub async fn log(node: &Arc<Node>) -> Result<Reply, ControlError> {
    let running = node.vault().await?;
    let rows = rows(&running).await?;
    Ok(Reply::DeviceLog { rows })
}

/// Every grant, oldest first.
pub(super) async fn rows(running: &Running) -> Result<Vec<LogRow>, ControlError> {
    let seen = super::relocking::seen(running)?;
    let log = running.vault.inspect(move |core| read_log(core, seen));
    log.await.map_err(commit_error)
}

fn read_log(core: &Core, seen: Option<Seen>) -> Vec<LogRow> {
    let state = core.state();
    let (membership, keyring) = (&state.membership, &state.keyring);
    let name = |id: &DeviceId| name_of(membership, keyring, id);
    let row = |id: Hash, by: &DeviceId, what: &str| LogRow {
        id: id.to_string(),
        what: what.into(),
        by: if membership.devices().contains_key(by) || membership.former().contains_key(by) {
            name(by)
        } else {
            "the words on paper".into()
        },
        device: None,
        role: None,
        at_ms: None,
        counts: match membership.fate(&id) {
            Some(Fate::Counts) => "yes",
            Some(Fate::Contested) => "contested",
            Some(Fate::Void) | None => "no",
        }
        .into(),
    };
    let mut rows = Vec::new();
    for (id, grant) in membership.grants() {
        let grant = grant.value();
        let by = &grant.author;
        rows.push(match &grant.body {
            GrantBody::Genesis { created_ms, .. } => LogRow {
                device: Some(name(by)),
                role: Some("owner".into()),
                at_ms: Some(*created_ms),
                ..row(id, by, "began")
            },
            GrantBody::Admit {
                device,
                role,
                created_ms,
                ..
            } => LogRow {
                device: Some(name(device)),
                role: Some(role_name(*role).into()),
                at_ms: Some(*created_ms),
                ..row(id, by, "admitted")
            },
            GrantBody::Epoch(epoch) => {
                let devices = epoch.seals.iter();
                let devices = devices.filter(|seal| seal.recipient != Recipient::Recovery);
                let what = match devices.count() {
                    1 => "changed the lock, for 1 device".to_owned(),
                    devices => format!("changed the lock, for {devices} devices"),
                };
                let seen = seen.filter(|seen| seen.epoch == epoch.epoch);
                LogRow {
                    what,
                    at_ms: seen.map(|seen| seen.at_ms),
                    ..row(id, by, "")
                }
            }
            GrantBody::Revoke(revocation) => LogRow {
                device: Some(name(&revocation.device)),
                at_ms: Some(revocation.created_ms),
                ..row(id, by, "revoked")
            },
            GrantBody::Role(change) => LogRow {
                device: Some(name(&change.device)),
                role: Some(role_name(change.role).into()),
                at_ms: Some(change.created_ms),
                ..row(id, by, "changed the role of")
            },
            GrantBody::Replace { created_ms, .. } => LogRow {
                at_ms: Some(*created_ms),
                ..row(id, by, "replaced the recovery words")
            },
        });
    }
    rows
}

/// What a person should know of who is in the vault: this device above all.
pub(super) async fn warnings(running: &Running) -> Result<Vec<Warning>, ControlError> {
    running.vault.inspect(warn).await.map_err(commit_error)
}

fn warn(core: &Core) -> Vec<Warning> {
    let state = core.state();
    let name = |id: &DeviceId| name_of(&state.membership, &state.keyring, id);
    let warning = |code: &str, text: String| Warning {
        code: code.into(),
        text,
    };
    let mut warnings = Vec::new();
    for (id, former) in state.membership.former() {
        let by = former.outs.first().map(|out| name(&out.by));
        let by = by.unwrap_or_else(|| "another device".into());
        let text = match (*id == core.device(), former.is_undecided()) {
            (true, false) => warning(
                "revoked",
                format!(
                    "This device was put out of the vault by {by}: what is written elsewhere does not reach it any more, and what is written here reaches nobody. \"coffer erase\" erases its copy."
                ),
            ),
            (_, true) if !former.outs.is_empty() => warning(
                "undecided",
                format!(
                    "{} and {by} have put each other out of the vault: run \"coffer device revoke\" on a third owner device, or with \"--with-words\", to decide.",
                    name(id)
                ),
            ),
            _ => continue,
        };
        warnings.push(text);
    }
    warnings
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Member => "member",
        Role::Reader => "reader",
        Role::Relay => "relay",
    }
}
