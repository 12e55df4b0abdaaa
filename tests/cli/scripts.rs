//! What scripts build on: JSON from every command, exit codes, acknowledgements in order, events.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::Value;

use crate::device::{Device, noise, pair_of_devices, write};
use crate::listener::Listener;

#[test]
fn every_command_prints_json_when_asked_to() {
    let device = Device::founded("first");
    write(&device.path("in/a.txt"), "a");
    write(&device.path("Documents/b.txt"), "b");
    for arguments in [
        &["status"][..],
        &["device", "list"],
        &["doc", "put", "t", "a", "{\"n\":1}"],
        &["doc", "edit", "t", "a", "n=2"],
        &["doc", "get", "t", "a"],
        &["doc", "history", "t", "a"],
        &["doc", "list"],
        &["doc", "list", "t"],
        &["doc", "find", "t", "--where", "n=2"],
        &["doc", "delete", "t", "a"],
        &["file", "add", "in"],
        &["file", "list", "-r"],
        &["file", "get", "in", "out"],
        &["file", "history", "in/a.txt"],
        &["file", "move", "in/a.txt", "in/c.txt"],
        &["file", "delete", "in/c.txt"],
        &["file", "list", "--trash"],
        &["file", "restore", "in/c.txt"],
        &["folder", "add", "Documents", "--yes"],
        &["folder", "list"],
        &["folder", "rescan"],
        &["export", "everything"],
        &["folder", "remove", "Documents"],
        &["exit-codes"],
    ] {
        let rows = device.rows(arguments);
        assert!(!rows.is_empty(), "{arguments:?} prints nothing");
        assert!(rows.iter().all(Value::is_object), "{arguments:?}: {rows:?}");
    }
}

#[test]
fn every_failure_is_one_json_object_when_asked_for() {
    let device = Device::founded("first");
    for (arguments, code) in [
        (&["doc", "get", "t", "absent"][..], 3),
        (&["file", "get", "absent"], 3),
        (&["doc", "put", "t", "a", "{"], 2),
        (&["join", "coffer:pair/1/AAAA"], 15),
        (&["pair"], 2),
        (&["recovery", "show"], 2),
        (&["folder", "remove", "absent"], 3),
        (&["init"], 4),
        (&["start"], 9),
    ] {
        let outcome = device.run(&[arguments, &["--json"]].concat());
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {outcome:?}");
        assert_eq!(outcome.out, "", "{arguments:?}");
        let said: Value = serde_json::from_str(outcome.err.trim())
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {outcome:?}"));
        assert_eq!(said["exit_code"], code);
        assert!(said["error"]["message"].is_string(), "{said}");
    }
}

#[test]
fn lines_are_acknowledged_in_order_while_standard_input_stays_open() {
    let device = Device::founded("first");
    let mut process = device
        .command(&["doc", "put", "--lines", "-", "--json"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = process.stdin.take().unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut revisions = Vec::new();
    for n in 0..20 {
        let value = if n == 7 {
            "7".to_owned()
        } else {
            format!("{{\"n\":{n}}}")
        };
        writeln!(
            input,
            "{{\"doctype\":\"t\",\"id\":\"d{n}\",\"value\":{value}}}"
        )
        .unwrap();
        let ack: Value = serde_json::from_str(&output.next().unwrap().unwrap()).unwrap();
        if n == 7 {
            assert_eq!(
                (&ack["line"], &ack["error"]["kind"]),
                (&8.into(), &"usage".into()),
                "{ack}"
            );
        } else {
            assert!(ack.get("error").is_none(), "{ack}");
            revisions.push((n, ack["revision"].as_str().expect("a revision").to_owned()));
        }
        assert_eq!(
            (&ack["doctype"], &ack["id"]),
            (&"t".into(), &format!("d{n}").into()),
            "{ack}"
        );
    }
    drop(input);
    let output = process.wait_with_output().unwrap();
    assert_ne!(output.status.code(), Some(0), "one line was refused");
    assert_eq!(device.rows(&["doc", "list", "t"]).len(), 19);
    for (n, revision) in revisions {
        let document = device.row(&["doc", "get", "t", &format!("d{n}")]);
        assert_eq!(document["revision"], revision, "d{n}");
    }
}

#[test]
fn lines_that_write_one_document_twice_are_answered_with_the_revision_of_each() {
    let device = Device::founded("first");
    let line = |id: &str, value: &str| {
        format!("{{\"doctype\":\"t\",\"id\":\"{id}\",\"value\":{value}}}\n")
    };
    let lines = [
        line("a", "{\"n\":1}"),
        line("a", "{\"n\":2}"),
        line("a", "{\"n\":2}"),
        line("", "{}"),
        "{\"id\":\"b\"}\n".to_owned(),
        "nothing\n".to_owned(),
    ];
    let mut process = device
        .command(&["doc", "put", "--lines", "-", "--json"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    process
        .stdin
        .take()
        .unwrap()
        .write_all(lines.concat().as_bytes())
        .unwrap();
    let output = process.wait_with_output().unwrap();
    let acks: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let known = |n: usize, field: &str| acks[n][field].clone();
    for (n, expected) in [(0, 1), (1, 2)] {
        let revision = known(n, "revision");
        let at = ["doc", "get", "t", "a", "--at", revision.as_str().unwrap()];
        assert_eq!(device.row(&at)["value"]["n"], expected);
    }
    assert_eq!(known(2, "revision"), Value::Null);
    assert_eq!(
        (known(3, "doctype"), known(3, "id")),
        ("t".into(), "".into())
    );
    assert_eq!(
        (known(4, "doctype"), known(4, "id")),
        (Value::Null, "b".into())
    );
    assert_eq!(
        (known(5, "doctype"), known(5, "id")),
        (Value::Null, Value::Null)
    );
    assert!(
        (3..6).all(|n| known(n, "error")["kind"] == "usage"),
        "{acks:?}"
    );
}

#[test]
fn events_tell_what_changes() {
    let device = Device::founded("first");
    let mut process = device
        .command(&["events", "--values", "--doctype", "t"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut next = |kind: &str| loop {
        let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        if event["event"] == kind {
            break event;
        }
    };
    next("listening");
    device.ok(&["doc", "put", "t", "a", "{\"n\":1}"]);
    let event = next("document");
    assert_eq!(
        (&event["id"], &event["value"]["n"]),
        (&"a".into(), &1.into())
    );
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn reader_that_leaves_early_is_no_error_message() {
    let device = Device::founded("first");
    write(&device.path("big.bin"), noise(1, 2_000_000));
    device.ok(&["file", "add", "big.bin"]);
    let mut process = device
        .command(&["file", "get", "big.bin", "-"])
        .spawn()
        .unwrap();
    drop(process.stdout.take());
    let output = process.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn events_tell_where_a_file_was_whether_its_content_is_here_and_who_made_the_change() {
    let (first, second) = pair_of_devices();
    let events = Listener::of(&second);
    let path = "Papers/old/letter.txt";
    let told = |change: &'static str| {
        let event = events.until(move |event| {
            event["event"] == "file" && event["path"] == path && event["change"] == change
        });
        let fact = |name: &str| event[name].as_bool().expect(name);
        (fact("here"), fact("made_here"))
    };
    write(&first.path("letter.txt"), noise(5, 300_000));
    first.ok(&["file", "add", "letter.txt", "--to", path]);
    assert_eq!(told("added"), (false, false));
    assert_eq!(told("fetched"), (true, false));
    second.ok(&["file", "get", path, "copy"]);
    // A tag is no change of the content.
    let revision = first.rows(&["file", "history", path])[0]["revision"].clone();
    first.ok(&["file", "tag", path, revision.as_str().expect("a revision")]);
    first.ok(&["file", "delete", path]);
    let next = events.until(|event| event["event"] == "file");
    assert_eq!(next["change"], "deleted", "{next}");
    second.ok(&["trash", "restore", path]);
    assert_eq!(told("restored"), (true, true));
    first.in_sync();
    first.ok(&["file", "delete", path]);
    assert_eq!(told("deleted"), (true, false));
    second.ok(&["trash", "restore", path]);
    assert_eq!(told("restored"), (true, true));
    write(&second.path("letter.txt"), noise(6, 3_000_000));
    second.ok(&["file", "add", "letter.txt", "--to", path]);
    assert_eq!(told("changed"), (true, true));
    second.ok(&["file", "delete", path]);
    assert_eq!(told("deleted"), (true, true));
    second.in_sync();
    first.ok(&["trash", "restore", path]);
    assert_eq!(told("restored"), (true, false));
    write(&first.path("letter.txt"), noise(7, 300_000));
    first.ok(&["file", "add", "letter.txt", "--to", path]);
    assert_eq!(told("changed"), (false, false));
    assert_eq!(told("fetched"), (true, false));
}
