//! A host learns nothing of what it keeps: random marks in everything that people write are nowhere on its disk, in its
//! log or in its memory.
//!
//! What looks for them (`search.rs`) is tried first on a planted leak. The memory of a host is closed to all but root: so the
//! test looks there as root, and else sees that it is closed.

use data_encoding::HEXLOWER;

use crate::device::{Device, eventually, noise, pair, write};
use crate::host::Host;
use crate::search::{FORMS, Found, Search, forms, mark, may_read_memory};

#[test]
fn a_host_has_nothing_of_names_contents_ids_and_types_on_its_disk_in_its_log_or_in_memory() {
    let [
        file,
        folder,
        content,
        small,
        id,
        doctype,
        value,
        tag,
        device,
        other,
    ] = [
        "file", "folder", "content", "small", "id", "type", "value", "tag", "device", "other",
    ]
    .map(mark);
    // The name of a device lives as long as the test.
    let [first, second]: [&'static str; 2] =
        [&device, &other].map(|name| &*Box::leak(name.clone().into_boxed_str()));
    let marks = [
        file.clone(),
        folder.clone(),
        content.clone(),
        small.clone(),
        id.clone(),
        doctype.clone(),
        value.clone(),
        tag.clone(),
        device.clone(),
        other.clone(),
    ];
    let search = Search::of(&marks);
    let mut host = Host::started();

    // The planted leak: each form of each mark must be found, on the disk as in the memory of this very program.
    let leak: String = marks
        .iter()
        .flat_map(|mark| forms(mark.as_bytes()))
        .map(|form| String::from_utf8(form).expect("text"))
        .collect::<Vec<_>>()
        .join(" ");
    host.stop();
    host.start_with(&[("LEAK", &leak), ("COFFER_RELAY_LOG_LEVEL", "debug")]);
    let planted = host.data.join("store/leak");
    write(&planted, &leak);
    let in_memory = |host: &Host| {
        let pid = host.pid();
        may_read_memory(pid).then(|| search.memory(pid))
    };
    for (what, found) in [
        ("disk", Some(search.disk(&host.data))),
        ("memory", in_memory(&host)),
    ] {
        let Some(found) = found else { continue };
        let count = found.forms.len();
        assert_eq!(count, marks.len() * FORMS, "planted in the {what}");
    }
    std::fs::remove_file(planted).expect("the leak can be removed");
    host.stop();
    host.start_with(&[("COFFER_RELAY_LOG_LEVEL", "debug")]);

    let a = Device::founded(first);
    let b = Device::waiting(second);
    pair(&a, &b);
    let said = a.row(&["relay", "add", &host.invite("1GiB")]);
    assert_eq!(said["host"]["name"], "attic");
    let dir = a.path("shared");
    let mut long = noise(7, 200_000);
    for at in (0..long.len() - content.len()).step_by(5_000) {
        long[at..at + content.len()].copy_from_slice(content.as_bytes());
    }
    write(&dir.join(&folder).join(&file), &long);
    write(&dir.join(format!("{file}.txt")), &small);
    let to = format!("shared {folder}");
    let added = dir.to_str().expect("a path");
    a.ok(&["folder", "add", added, "--to", &to, "--yes"]);
    let document = format!("{{\"text\":\"{value}\",\"n\":1}}");
    a.ok(&["doc", "put", &doctype, &id, &document]);
    let tagged = format!("{to}/{file}.txt");
    eventually("the folder is recorded", || {
        a.status()["folders"][0]["files"] == 2
    });
    let history = a.rows(&["file", "history", &tagged]);
    let revision = history[0]["revision"].as_str().expect("a revision");
    a.ok(&["file", "tag", &tagged, revision, &tag]);
    let holds_all = |device: &Device| {
        let row = device.status()["hosts"][0].clone();
        row["holding"]["everything"] == true && row["holding"]["lacks"]["changes"] == 0
    };
    eventually("the host holds what the devices wrote", || {
        holds_all(&a) && holds_all(&b)
    });
    // Contents come back from it too.
    b.ok(&["file", "get", &tagged, "got"]);
    let vault = a.status()["vault"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let found_in_memory = in_memory(&host).unwrap_or_default();
    let on_disk = search.disk(&host.data);
    let mut in_log = Found::default();
    search.look(host.log().as_bytes(), &mut in_log);
    for (what, found) in [
        ("memory", &found_in_memory),
        ("disk", &on_disk),
        ("log", &in_log),
    ] {
        let named = search.told(found);
        assert!(named.is_empty(), "in the {what} of the host: {named:?}");
    }
    // And it was looked where something is: the vault's id, which a host must know, is in both places.
    let known = HEXLOWER.decode(vault.as_bytes()).expect("hexadecimal");
    let control = Search::named(&[(vault, known)]);
    if may_read_memory(host.pid()) {
        assert!(!control.memory(host.pid()).forms.is_empty());
        assert!(
            found_in_memory.bytes > 8 << 20,
            "{} bytes",
            found_in_memory.bytes
        );
    }
    assert!(!control.disk(&host.data).forms.is_empty());
    assert!(on_disk.bytes > long.len() as u64, "{} bytes", on_disk.bytes);
    host.stop();
    let named = search.told(&search.disk(&host.data));
    assert!(named.is_empty(), "after its end: {named:?}");
}
