//! Binding a vault to a host.

use super::*;
use crate::identity::DeviceId;

fn introduction() -> Box<Host> {
    Box::new(Host {
        sealing: sealing(9),
        name: "attic".into(),
        quota_bytes: 10 << 30,
        store: STORE,
    })
}

fn all_grants(founded: &Founded) -> Vec<Vec<u8>> {
    founded
        .membership
        .grants()
        .map(|(_, grant)| grant.bytes().to_vec())
        .collect()
}

/// The bytes of the one message among a device's steps.
fn sent(steps: &[DeviceStep]) -> &[u8] {
    match steps {
        [DeviceStep::Send(bytes)] => bytes,
        other => panic!("{other:?}"),
    }
}

/// The bytes of the first message among a host's steps.
fn answered(steps: &[HostStep]) -> &[u8] {
    match steps {
        [HostStep::Send(bytes), ..] => bytes,
        other => panic!("{other:?}"),
    }
}

/// Runs a device of `vault` with `grants` against a host that finds things to stand so.
fn run(
    device_id: DeviceId,
    mut device: DeviceSide,
    first: Vec<DeviceStep>,
    standing: Standing,
    grants: Vec<Vec<u8>>,
) -> (Vec<DeviceStep>, Option<HostStep>) {
    let mut host = HostSide::new(host_key().id(), device_id);
    let looks = host.on_message(sent(&first));
    assert!(matches!(looks[..], [HostStep::LookUp { .. }]), "{looks:?}");
    let steps = host.stands(standing);
    let admits = device.on_message(answered(&steps));
    if !matches!(admits[..], [DeviceStep::Admit(_)]) {
        return (admits, None);
    }
    let bind = device.admitted(Some(grants));
    let mut steps = host.on_message(sent(&bind));
    match steps.pop() {
        Some(store @ HostStep::Store { .. }) => {
            let done = host.stored(Ok(()));
            assert!(matches!(done[..], [HostStep::Send(_), HostStep::Bound]));
            (device.on_message(answered(&done)), Some(store))
        }
        _ => (device.on_message(answered(&steps)), None),
    }
}

fn bind(with_host: bool, device: u8) -> (Vec<DeviceStep>, Option<HostStep>) {
    let founded = vault(with_host);
    let vault = founded.membership.vault();
    let (side, first) = DeviceSide::by_invitation(vault, host_key().id(), &invitation());
    let standing = Standing::Welcome(introduction());
    run(
        key(device).id(),
        side,
        first,
        standing,
        all_grants(&founded),
    )
}

#[test]
fn an_owner_binds_its_vault_with_an_invitation() {
    let (steps, store) = bind(true, 1);
    assert_eq!(steps, [DeviceStep::Bound(introduction())]);
    let Some(HostStep::Store {
        vault: bound,
        invitation: used,
        membership,
    }) = store
    else {
        panic!("nothing was stored");
    };
    assert_eq!(used, Some(invitation().id()));
    assert_eq!(membership.vault(), bound);
    assert_eq!(membership.role(&host_key().id()), Some(Role::Relay));
}

#[test]
fn grants_that_do_not_show_it_bind_nothing() {
    for (with_host, device, why) in [
        (false, 1, BindError::Host),
        (true, 2, BindError::Device),
        (true, 3, BindError::Device),
        (true, 9, BindError::Device),
    ] {
        let (steps, store) = bind(with_host, device);
        assert_eq!(steps, [DeviceStep::Failed(JoinError::Refused(why))]);
        assert!(store.is_none());
    }
}

#[test]
fn grants_of_another_vault_bind_nothing() {
    let (side, first) = DeviceSide::by_invitation(VAULT, host_key().id(), &invitation());
    let standing = Standing::Welcome(introduction());
    let grants = all_grants(&vault(true));
    let (steps, store) = run(key(1).id(), side, first, standing, grants);
    assert_eq!(
        steps,
        [DeviceStep::Failed(JoinError::Refused(BindError::Grants))]
    );
    assert!(store.is_none());
}

#[test]
fn any_device_that_holds_keys_makes_itself_known_to_a_host_that_keeps_its_vault() {
    let founded = vault(true);
    for (device, bound) in [(2, true), (3, false), (9, false)] {
        let (side, first) = DeviceSide::as_member(founded.membership.vault());
        let standing = Standing::Welcome(introduction());
        let (steps, store) = run(
            key(device).id(),
            side,
            first,
            standing,
            all_grants(&founded),
        );
        assert_eq!(store.is_some(), bound, "{device}");
        assert_eq!(matches!(steps[..], [DeviceStep::Bound(_)]), bound);
    }
}

#[test]
fn each_refusal_reaches_the_device() {
    for why in [
        JoinError::NotInvited,
        JoinError::Expired,
        JoinError::Used,
        JoinError::Busy,
    ] {
        let (side, first) = DeviceSide::by_invitation(VAULT, host_key().id(), &invitation());
        let (steps, _) = run(key(1).id(), side, first, Standing::No(why), Vec::new());
        assert_eq!(steps, [DeviceStep::Failed(why)]);
    }
}

#[test]
fn the_secret_goes_to_its_maker_only() {
    let (_, steps) = DeviceSide::by_invitation(VAULT, key(3).id(), &invitation());
    assert_eq!(steps, [DeviceStep::Failed(JoinError::WrongHost)]);
}

#[test]
fn what_is_out_of_turn_ends_the_conversation() {
    let (mut device, first) = DeviceSide::as_member(VAULT);
    let join = sent(&first).to_vec();
    let mut host = HostSide::new(host_key().id(), key(1).id());
    host.on_message(&join);
    let refused = host.on_message(&join);
    assert!(matches!(
        refused[..],
        [HostStep::Send(_), HostStep::Failed(JoinError::Malformed)]
    ));
    assert!(host.on_message(&join).is_empty());
    assert!(host.disconnected().is_empty());
    assert_eq!(
        device.on_message(&[1]),
        [DeviceStep::Failed(JoinError::Malformed)]
    );
    assert!(device.disconnected().is_empty());
}

#[test]
fn a_stranger_makes_a_host_hold_little_before_it_is_known() {
    let (_, first) = DeviceSide::as_member(VAULT);
    let mut host = HostSide::new(host_key().id(), key(1).id());
    assert_eq!(host.message_limit(), MAX_JOIN_MESSAGE);
    host.on_message(sent(&first));
    assert_eq!(host.message_limit(), MAX_JOIN_MESSAGE);
    host.stands(Standing::Welcome(introduction()));
    assert_eq!(host.message_limit(), MAX_BIND);
}

#[test]
fn a_host_that_cannot_be_admitted_is_told_nothing_more() {
    let (mut device, first) = DeviceSide::as_member(VAULT);
    let mut host = HostSide::new(host_key().id(), key(1).id());
    host.on_message(sent(&first));
    device.on_message(answered(&host.stands(Standing::Welcome(introduction()))));
    assert_eq!(
        device.admitted(None),
        [DeviceStep::Failed(JoinError::NotAdmitted)]
    );
}
