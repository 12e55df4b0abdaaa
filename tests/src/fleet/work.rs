//! What goes on in one replica: requests, batches, answers.

use coffer_node::vault::core::Ticket;
use coffer_node::vault::{CommitError, Input, Output};
use coffer_protocol::replication::Action;
use rand::RngExt;

use super::Fleet;
use crate::acts::Act;
use crate::operations::{Issued, Person};
use crate::oracle;

impl Fleet {
    pub(super) fn input(&mut self, place: usize, input: Input) {
        if let Some(node) = &mut self.replicas[place].node {
            node.inbox.push(input);
        }
    }

    pub(super) fn operate(&mut self, place: usize) {
        // What is not possible as things are is left, and something else done.
        (0..3).any(|_| {
            let act = Act::draw(&mut self.rng);
            self.act(place, act)
        });
    }

    /// Does something in one replica. False if there is nothing there to do it with.
    pub(super) fn act(&mut self, place: usize, act: Act) -> bool {
        if matches!(act, Act::Type | Act::Erase | Act::Batch) {
            // Who types sees what has arrived: a text is written against what was shown.
            self.settle(place);
        }
        let replica = &mut self.replicas[place];
        let wall_ms = replica.wall_ms(self.now_ms);
        let Some(node) = &mut replica.node else {
            return true;
        };
        let person = Person::new(&node.core, &mut self.ledger, &mut self.rng, wall_ms);
        match person.act(act) {
            Ok(Some((request, issued, bytes))) => {
                self.next_ticket += 1;
                let ticket = self.next_ticket;
                replica.bytes.extend(bytes);
                node.tickets.insert(ticket, issued);
                node.inbox
                    .push(Input::Commit(ticket, Box::new(request.clone())));
                let event = format!("{} asks {ticket}: {:?}", replica.name, request.operations);
                self.event(event);
            }
            Ok(None) => return false,
            Err(error) => self.storage_failed(place, &error.to_string()),
        }
        true
    }

    /// Reading failed: the machine died, or its disk was full before and the database has given up.
    pub(super) fn storage_failed(&mut self, place: usize, error: &str) {
        if let Some(call) = self.replicas[place].died_in() {
            self.coverage.hit("crash point", call.name());
            return self.die(place);
        }
        assert!(
            self.replicas[place].disk.was_full(),
            "{}: the store failed: {error}",
            self.replicas[place].name
        );
        self.end(place);
    }

    /// One batch, or the publishing of the last one's outputs.
    pub(super) fn tick(&mut self, place: usize) {
        let now_ms = self.now_ms;
        let replica = &mut self.replicas[place];
        let wall_ms = replica.wall_ms(now_ms);
        let Some(node) = &mut replica.node else {
            return;
        };
        if !node.outputs.is_empty() {
            return self.publish(place);
        }
        if node.inbox.is_empty() {
            return;
        }
        let inputs = std::mem::take(&mut node.inbox);
        let outputs = node.core.process(inputs, wall_ms);
        node.outputs.extend(outputs);
        if let Some(call) = replica.died_in() {
            self.coverage.hit("crash point", call.name());
            return self.die(place);
        }
        oracle::check_statement(&mut self.replicas[place]);
        if self.rng.random_bool(0.7) {
            self.publish(place);
        }
    }

    /// All that is in its inbox is done and answered.
    pub(super) fn settle(&mut self, place: usize) {
        for _ in 0..2 {
            self.tick(place);
            self.publish(place);
        }
    }

    pub(super) fn publish(&mut self, place: usize) {
        while let Some(output) = self.replicas[place]
            .node
            .as_mut()
            .and_then(|node| node.outputs.pop_front())
        {
            self.publish_one(place, output);
        }
        if self.replicas[place].disk.was_full() {
            // A redb that met an error of the disk wants to be opened anew.
            self.coverage.hit("fault", "disk full");
            self.end(place);
        }
    }

    pub(super) fn publish_one(&mut self, place: usize, output: Output) {
        match output {
            Output::Committed(ticket, result) => {
                let Some(issued) = self.replicas[place]
                    .node
                    .as_mut()
                    .and_then(|node| node.tickets.remove(&ticket))
                else {
                    panic!("an answer to nothing that was asked");
                };
                match result {
                    Ok(committed) => {
                        self.event(format!(
                            "{} answers {ticket}: {}",
                            self.replicas[place].name, committed.transaction
                        ));
                        self.acknowledged(place, issued, &committed.changed);
                    }
                    Err(error) => self.refused(place, ticket, &issued, &error),
                }
            }
            Output::Admitted(ticket, result) => {
                let Some(mut newcomer) = self.newcomers.remove(&ticket) else {
                    panic!("an admission that nobody asked for")
                };
                match result {
                    Ok(welcome) => {
                        self.event(format!(
                            "{} admits {}",
                            self.replicas[place].name, newcomer.name
                        ));
                        self.coverage.hit("fault", "device admitted");
                        newcomer.joins(welcome);
                        self.replicas.push(newcomer);
                    }
                    // Who asks may be no owner any more.
                    Err(error) => assert!(
                        is_storage(&error) || matches!(error, CommitError::Invalid(_)),
                        "{}: a device was not admitted: {error}",
                        self.replicas[place].name
                    ),
                }
            }
            Output::Managed(ticket, result) => self.managed(place, ticket, result),
            Output::To(device, action) => {
                match &action {
                    Action::Send { message, .. } => self.trace.bytes("send", &message.encode()),
                    other => self.trace.bytes("to", format!("{other:?}").as_bytes()),
                }
                let session = self.replicas[place]
                    .node
                    .as_mut()
                    .and_then(|node| node.sessions.get_mut(&device));
                if let Some(session) = session {
                    let rest = session.outbox.push(action);
                    assert!(
                        rest.is_none(),
                        "an action for the shell was sent to a session: {rest:?}"
                    );
                }
            }
            Output::Close(device, reason) => {
                self.event(format!(
                    "{} ends the session with {device:?}: {reason}",
                    self.replicas[place].name
                ));
                if let Some(session) = self.replicas[place]
                    .node
                    .as_mut()
                    .and_then(|node| node.sessions.remove(&device))
                {
                    self.network.close(session.connection, place);
                }
            }
            Output::Changed(changes) => self
                .trace
                .bytes("changed", format!("{changes:?}").as_bytes()),
            Output::MembersChanged => self.trace.bytes("members", &[]),
            Output::HeldChanged => self.trace.bytes("held", &[]),
            Output::HostsChanged => self.trace.bytes("hosts", &[]),
            // The disks of the fleet die with their node.
            Output::StoreClosed(_) => {}
            Output::Forked(writer, seq) => panic!("the log of {writer} forks at {seq}"),
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        place: usize,
        issued: Issued,
        changed: &[(String, String)],
    ) {
        assert!(
            !issued.must_fail,
            "a request was carried out that cannot be"
        );
        if self.replicas[place].died_in().is_none() {
            oracle::check_durable(&mut self.replicas[place]);
        }
        for act in issued.acts {
            self.coverage.hit("operation", act);
        }
        let replica = &mut self.replicas[place];
        replica.typed[0].extend(issued.typed.iter().cloned());
        replica.typed[1].extend(issued.erased.iter().cloned());
        replica.made_files.extend(issued.created.iter().copied());
        for (id, typed) in issued.typed {
            if let Some(typed) = self
                .ledger
                .typed
                .get_mut(&id)
                .and_then(|all| all.get_mut(&typed))
            {
                typed.acknowledged = true;
            }
        }
        for (id, erased) in issued.erased {
            if let Some(typed) = self
                .ledger
                .typed
                .get_mut(&id)
                .and_then(|all| all.get_mut(&erased))
            {
                typed.erased = true;
            }
        }
        self.ledger.files.extend(issued.created);
        let replica = &mut self.replicas[place];
        let Some(node) = &replica.node else { return };
        let actor = node.core.state().writer.actor();
        for (doctype, id) in changed {
            match oracle::changes_of(node.core.database(), doctype, id, actor) {
                Ok(changes) => {
                    // The same commit, or another thing that it took in, may have purged it.
                    let is_purged = oracle::is_purged(node.core.database(), doctype, id);
                    assert!(
                        !changes.is_empty() || is_purged,
                        "{}: an acknowledged change of {doctype}/{id} is not there",
                        replica.name
                    );
                    replica
                        .acknowledged
                        .entry((doctype.clone(), id.clone()))
                        .or_default()
                        .extend(changes);
                }
                // The machine dies while the oracle looks: the next start will show.
                Err(error) => assert!(replica.died_in().is_some(), "{error}"),
            }
        }
    }

    pub(super) fn refused(
        &mut self,
        place: usize,
        ticket: Ticket,
        issued: &Issued,
        error: &CommitError,
    ) {
        self.event(format!(
            "{} refuses {ticket}: {error}",
            self.replicas[place].name
        ));
        match error {
            CommitError::NotFound(_) if issued.must_fail => {
                self.coverage.hit("operation", "refused")
            }
            // Two people at one device delete one document.
            CommitError::NotFound(_)
                if issued
                    .acts
                    .iter()
                    .any(|act| matches!(*act, "delete" | "batch")) => {}
            CommitError::PutOut | CommitError::ReadOnly | CommitError::NoKey => {
                self.coverage.hit("membership", "write refused")
            }
            // Others purged it meanwhile, or two people at one device did.
            CommitError::Purged(_) => self.coverage.hit("operation", "refused as purged"),
            CommitError::NotFound(_) if issued.acts.contains(&"purge") => {}
            CommitError::DiskFull => self.coverage.hit("fault", "told that the disk is full"),
            error => assert!(
                is_storage(error),
                "{} refuses {:?}: {error}",
                self.replicas[place].name,
                issued.acts
            ),
        }
    }
}

fn is_storage(error: &CommitError) -> bool {
    matches!(error, CommitError::DiskFull | CommitError::Storage(_))
}
