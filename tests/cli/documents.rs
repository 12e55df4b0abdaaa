//! Documents between two devices, connected and apart.

use serde_json::{Value, json};

use crate::device::{Device, eventually, pair_of_devices};

const CONTACTS: &str = "io.cozy.contacts";
const NOTES: &str = "io.cozy.notes";

fn value(device: &Device, doctype: &str, id: &str) -> Value {
    device.row(&["doc", "get", doctype, id])["value"].clone()
}

/// Whether a document is there and reads so.
fn reads(device: &Device, doctype: &str, id: &str, expected: &Value) -> bool {
    let outcome = device.run(&["doc", "get", doctype, id, "--json"]);
    let said: Value = serde_json::from_str(&outcome.out).unwrap_or_default();
    outcome.code == Some(0) && said["value"] == *expected
}

fn put(device: &Device, doctype: &str, id: &str, value: &Value) {
    device.ok(&["doc", "put", doctype, id, &value.to_string()]);
}

/// Lets each device edit while the other is off, and then brings them together.
fn apart(
    first: &mut Device,
    second: &mut Device,
    on_first: impl FnOnce(&Device),
    on_second: impl FnOnce(&Device),
) {
    second.stop();
    on_first(first);
    first.stop();
    second.start();
    on_second(second);
    first.start();
    first.in_sync();
    second.in_sync();
}

#[test]
fn edits_flow_both_ways() {
    let (first, second) = pair_of_devices();
    put(
        &first,
        CONTACTS,
        "ana",
        &json!({ "name": "Ana", "age": 40 }),
    );
    eventually("the second device has it", || {
        second.run(&["doc", "get", CONTACTS, "ana"]).code == Some(0)
    });
    second.ok(&[
        "doc",
        "edit",
        CONTACTS,
        "ana",
        "age=41",
        "address.city=Porto",
    ]);
    let expected = json!({ "name": "Ana", "age": 41, "address": { "city": "Porto" } });
    eventually("the first device has the edit", || {
        reads(&first, CONTACTS, "ana", &expected)
    });
    first.ok(&["doc", "delete", CONTACTS, "ana"]);
    eventually("it is deleted on the second device", || {
        second.rows(&["doc", "list", CONTACTS]).is_empty()
    });
    put(&second, CONTACTS, "ana", &json!({ "name": "Ana again" }));
    eventually("it is back on the first device", || {
        reads(&first, CONTACTS, "ana", &json!({ "name": "Ana again" }))
    });
}

#[test]
fn different_fields_edited_apart_are_both_kept() {
    let (mut first, mut second) = pair_of_devices();
    put(
        &first,
        CONTACTS,
        "ana",
        &json!({ "name": "Ana", "phone": "1", "city": "Porto" }),
    );
    first.in_sync();
    apart(
        &mut first,
        &mut second,
        |first| drop(first.ok(&["doc", "edit", CONTACTS, "ana", "phone=\"2\""])),
        |second| drop(second.ok(&["doc", "edit", CONTACTS, "ana", "city=Braga"])),
    );
    let expected = json!({ "name": "Ana", "phone": "2", "city": "Braga" });
    assert_eq!(value(&first, CONTACTS, "ana"), expected);
    assert_eq!(value(&second, CONTACTS, "ana"), expected);
}

#[test]
fn same_field_edited_apart_shows_one_winner_everywhere_and_keeps_the_other_in_the_history() {
    let (mut first, mut second) = pair_of_devices();
    put(&first, CONTACTS, "ana", &json!({ "phone": "1" }));
    first.in_sync();
    apart(
        &mut first,
        &mut second,
        |first| drop(first.ok(&["doc", "edit", CONTACTS, "ana", "phone=\"2\""])),
        |second| drop(second.ok(&["doc", "edit", CONTACTS, "ana", "phone=\"3\""])),
    );
    let shown = value(&first, CONTACTS, "ana");
    assert_eq!(shown, value(&second, CONTACTS, "ana"));
    let document = first.row(&["doc", "get", CONTACTS, "ana"]);
    assert_eq!(document["conflicts"], json!(["/phone"]));
    let mut seen: Vec<String> = Vec::new();
    for revision in second.rows(&["doc", "history", CONTACTS, "ana"]) {
        let at = revision["revision"].as_str().unwrap().to_owned();
        let then = second.row(&["doc", "get", CONTACTS, "ana", "--at", &at]);
        seen.push(then["value"]["phone"].as_str().unwrap().to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["1", "2", "3"]);
}

#[test]
fn same_id_created_apart_has_the_fields_of_both() {
    let (mut first, mut second) = pair_of_devices();
    apart(
        &mut first,
        &mut second,
        |first| {
            put(
                first,
                CONTACTS,
                "new",
                &json!({ "name": "Ana", "tags": { "a": 1 } }),
            )
        },
        |second| {
            put(
                second,
                CONTACTS,
                "new",
                &json!({ "phone": "2", "tags": { "b": 2 } }),
            )
        },
    );
    let expected = json!({ "name": "Ana", "phone": "2", "tags": { "a": 1, "b": 2 } });
    assert_eq!(value(&first, CONTACTS, "new"), expected);
    assert_eq!(value(&second, CONTACTS, "new"), expected);
}

#[test]
fn declared_text_typed_on_both_keeps_what_both_typed() {
    let (mut first, mut second) = pair_of_devices();
    let text = "The quick fox jumps over the dog.";
    put(
        &first,
        NOTES,
        "today",
        &json!({ "title": "t", "content": text }),
    );
    first.in_sync();
    apart(
        &mut first,
        &mut second,
        |first| {
            put(
                first,
                NOTES,
                "today",
                &json!({ "title": "t", "content": text.replace("quick", "quick brown") }),
            );
        },
        |second| {
            put(
                second,
                NOTES,
                "today",
                &json!({ "title": "t", "content": text.replace("the dog", "the lazy dog") }),
            );
        },
    );
    let expected =
        json!({ "title": "t", "content": "The quick brown fox jumps over the lazy dog." });
    assert_eq!(value(&first, NOTES, "today"), expected);
    assert_eq!(value(&second, NOTES, "today"), expected);
}

#[test]
fn copy_read_earlier_undoes_nothing_that_came_since() {
    let device = Device::founded("first");
    put(
        &device,
        NOTES,
        "today",
        &json!({ "title": "t", "content": "one\n" }),
    );
    let read = device.row(&["doc", "get", NOTES, "today"]);
    let revision = read["revision"].as_str().unwrap();
    device.ok(&[
        "doc",
        "edit",
        NOTES,
        "today",
        "title=new",
        "content=zero\none\n",
    ]);
    let copy = json!({ "title": "t", "content": "one\ntwo\n", "more": 1 }).to_string();
    device.ok(&["doc", "put", NOTES, "today", &copy, "--base", revision]);
    let expected = json!({ "title": "new", "content": "zero\none\ntwo\n", "more": 1 });
    assert_eq!(value(&device, NOTES, "today"), expected);
    let beginning = &revision[..8];
    let merge = json!({ "content": "half\none\n" }).to_string();
    device.ok(&[
        "doc", "edit", NOTES, "today", "--merge", &merge, "--base", beginning,
    ]);
    assert_eq!(
        value(&device, NOTES, "today")["content"],
        "zero\nhalf\none\ntwo\n"
    );
    let line = json!({ "doctype": NOTES, "id": "today", "value": read["value"], "base": revision });
    std::fs::write(device.path("lines"), line.to_string()).unwrap();
    let summary = device.row(&["doc", "put", "--lines", "lines"]);
    assert_eq!(summary["unchanged"], 1, "{summary}");
    for unknown in ["ab".repeat(32), "abcd".to_owned()] {
        let outcome = device.run(&["doc", "put", NOTES, "today", "{}", "--base", &unknown]);
        outcome.fails(3, "revision");
    }
    let outcome = device.run(&["doc", "put", NOTES, "absent", "{}", "--base", revision]);
    outcome.fails(3, "absent");
}

#[test]
fn a_document_has_a_largest_size_and_refused_lines_have_their_true_number() {
    let device = Device::founded("laptop");
    let (half, other) = ("x".repeat(3 << 20), "y".repeat(3 << 20));
    let line = |fields: Value| json!({ "doctype": NOTES, "id": "a", "value": fields }).to_string();
    let write = |lines: &[String]| {
        std::fs::write(device.path("lines"), lines.join("\n")).unwrap();
    };
    write(&[line(json!({ "a": half, "b": other }))]);
    device
        .run(&["doc", "put", "--lines", "lines"])
        .fails(2, "4 MiB");
    write(&[line(json!({ "a": half }))]);
    device.ok(&["doc", "put", "--lines", "lines"]);
    write(&[
        String::new(),
        line(json!({ "c": 1 })),
        String::new(),
        line(json!({ "b": other })),
        line(json!({ "a": "short", "c": null })),
    ]);
    let edited = device.run(&["doc", "edit", "--lines", "lines"]);
    edited.fails(2, "line 4: a document may have 4 MiB as JSON");
    assert_eq!(value(&device, NOTES, "a"), json!({ "a": "short" }));
}

#[test]
fn edit_made_apart_from_a_deletion_keeps_the_document() {
    let (mut first, mut second) = pair_of_devices();
    put(&first, CONTACTS, "ana", &json!({ "name": "Ana", "n": 1 }));
    first.in_sync();
    apart(
        &mut first,
        &mut second,
        |first| drop(first.ok(&["doc", "delete", CONTACTS, "ana"])),
        |second| drop(second.ok(&["doc", "edit", CONTACTS, "ana", "n=2"])),
    );
    for device in [&first, &second] {
        assert_eq!(value(device, CONTACTS, "ana")["n"], 2);
        assert_eq!(device.rows(&["doc", "list", CONTACTS]).len(), 1);
    }
}

#[test]
fn documents_are_found_by_what_is_in_them_on_the_other_device() {
    let (first, second) = pair_of_devices();
    let lines: String = (0..300)
        .map(|n| {
            let line = json!({ "doctype": "bills", "id": format!("b{n}"), "value": { "n": n, "paid": n % 3 == 0, "text": format!("bill number {n}") } });
            format!("{line}\n")
        })
        .collect();
    std::fs::write(first.path("bills.jsonl"), lines).unwrap();
    let summary = first.row(&["doc", "put", "--lines", "bills.jsonl"]);
    assert_eq!(summary["written"], 300, "{summary}");
    first.in_sync();
    assert_eq!(
        second
            .rows(&["doc", "find", "bills", "--where", "paid=true"])
            .len(),
        100
    );
    let found = second.rows(&["doc", "find", "bills", "--text", "number 77"]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["value"]["n"], 77);
}

#[test]
fn deleted_document_is_told_from_one_that_never_was_and_stays_readable() {
    let device = Device::founded("first");
    put(&device, CONTACTS, "ana", &json!({ "name": "Ana" }));
    device.ok(&["doc", "delete", CONTACTS, "ana"]);
    let get = ["doc", "get", CONTACTS, "ana"];
    let outcome = device.run(&get);
    outcome.fails(3, "was deleted");
    assert!(outcome.err.contains("coffer doc history"), "{outcome:?}");
    device
        .run(&["doc", "get", CONTACTS, "bo"])
        .fails(3, "there is no document");
    let history = device.rows(&["doc", "history", CONTACTS, "ana"]);
    for (revision, deleted) in history.iter().zip([true, false]) {
        let at = ["--at", revision["revision"].as_str().unwrap()];
        let then = device.row(&[&get[..], &at].concat());
        assert_eq!(then["deleted"], deleted, "{then}");
        assert_eq!(then["value"], json!({ "name": "Ana" }));
    }
    put(&device, CONTACTS, "ana", &json!({ "name": "Ana" }));
    assert_eq!(value(&device, CONTACTS, "ana")["name"], "Ana");
}

#[test]
fn several_documents_are_printed_at_once_and_one_that_is_missing_is_told() {
    let device = Device::founded("first");
    for name in ["ana", "bo"] {
        put(&device, CONTACTS, name, &json!({ "name": name }));
    }
    let rows = device.rows(&["doc", "get", CONTACTS, "bo", "ana"]);
    let names: Vec<_> = rows.iter().map(|row| &row["value"]["name"]).collect();
    assert_eq!(names, ["bo", "ana"]);
    let said = device.ok(&["doc", "get", CONTACTS, "ana", "bo"]);
    assert_eq!(said, "ana  {\"name\":\"ana\"}\nbo  {\"name\":\"bo\"}\n");

    let outcome = device.run(&["doc", "get", CONTACTS, "cy", "bo"]);
    outcome.fails(3, "there is no document");
    assert!(outcome.out.starts_with("bo  "), "{outcome:?}");
    device
        .run(&["doc", "get", CONTACTS, "ana", "bo", "--at", "3f"])
        .fails(2, "--at with one id");
}

#[test]
fn what_is_no_document_is_refused() {
    let device = Device::founded("first");
    for (arguments, code) in [
        (&["doc", "put", "t", "a", "[1]"][..], 2),
        (&["doc", "put", "t", "a", "{\"n\":"], 2),
        (&["doc", "put", "t", "a", "{\"_id\":\"x\"}"], 2),
        (&["doc", "put", "", "a", "{}"], 2),
        (&["doc", "get", "t", "absent"], 3),
        (&["doc", "edit", "t", "absent", "n=1"], 3),
        (&["doc", "delete", "t", "absent"], 3),
        (&["doc", "put", "io.cozy.files", "a", "{}"], 2),
    ] {
        let outcome = device.run(arguments);
        assert_eq!(outcome.code, Some(code), "{arguments:?}: {outcome:?}");
        assert!(outcome.err.starts_with("error: "), "{outcome:?}");
    }
    assert!(device.rows(&["doc", "list"]).is_empty());
}
