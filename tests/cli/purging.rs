//! `doc purge`: a document that every device forgets.

use serde_json::{Value, json};

use crate::device::{eventually, pair_of_devices};

const NOTES: &str = "io.cozy.notes";

#[test]
fn a_purged_document_is_forgotten_on_a_device_that_was_off_and_on_one_that_went_on_editing_it() {
    let (mut first, mut second) = pair_of_devices();
    let diary = json!({ "title": "Diary", "content": "zanzibar" }).to_string();
    first.ok(&["doc", "put", NOTES, "diary", &diary]);
    first.ok(&[
        "doc",
        "put",
        NOTES,
        "kept",
        r#"{"title":"Kept","content":"palimpsest"}"#,
    ]);
    eventually("the second device has both", || {
        ["diary", "kept"]
            .iter()
            .all(|id| second.run(&["doc", "get", NOTES, id]).code == Some(0))
    });
    second.stop();

    // It asks, and nobody is here to answer.
    let outcome = first.run(&["doc", "purge", NOTES, "diary"]);
    outcome.fails(5, "a question needs an answer");
    first.ok(&["doc", "get", NOTES, "diary"]);

    let reply = first.row(&["doc", "purge", NOTES, "diary", "--yes"]);
    assert_eq!(reply["devices"], json!(1), "{reply}");
    let code = |outcome: &crate::device::Outcome| -> Value {
        let error: Value = serde_json::from_str(&outcome.err).unwrap_or_default();
        error["error"]["code"].clone()
    };
    let gone = first.run(&["doc", "get", NOTES, "diary", "--json"]);
    assert_eq!(
        (gone.code, code(&gone)),
        (Some(3), json!("purged")),
        "{gone:?}"
    );
    let refused = first.run(&["doc", "put", NOTES, "diary", "{}", "--json"]);
    assert_eq!(code(&refused), json!("purged"), "{refused:?}");
    assert!(
        first
            .rows(&["doc", "find", NOTES, "--text", "zanzibar"])
            .is_empty()
    );

    // The other has not heard, and writes to it.
    first.stop();
    second.start();
    second.ok(&["doc", "edit", NOTES, "diary", "title=More"]);
    first.start();
    eventually("the second device has forgotten it", || {
        second.run(&["doc", "get", NOTES, "diary"]).code == Some(3)
    });
    first.in_sync();
    second.in_sync();
    for device in [&first, &second] {
        assert!(
            device
                .rows(&["doc", "find", NOTES, "--text", "zanzibar"])
                .is_empty()
        );
        assert_eq!(device.rows(&["doc", "list", NOTES]).len(), 1);
        assert_eq!(device.run(&["doc", "get", NOTES, "diary"]).code, Some(3));
        device.ok(&["doc", "get", NOTES, "kept"]);
    }
    // Not by hand, and not what is no document of a person's.
    first
        .run(&["doc", "purge", "io.coffer.settings", "versions", "--yes"])
        .fails(2, "coffer's own");
    first
        .run(&["doc", "purge", "io.cozy.files", "x", "--yes"])
        .fails(2, "trash");
    first
        .run(&["doc", "purge", NOTES, "nobody", "--yes"])
        .fails(3, "there is no document");
}
