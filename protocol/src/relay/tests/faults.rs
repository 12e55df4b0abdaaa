//! What a host's statements give away.

use proptest::prelude::*;

use super::super::freshness::{Fault, Record};
use super::*;

fn at(counter: u64, seq: u64) -> HostStatement {
    said(state(counter, clock(&[(1, seq)])))
}

#[test]
fn an_honest_host_is_never_blamed_however_its_statements_travel() {
    let mut record = Record::default();
    for counter in 1..5 {
        let heard = record.hear(&at(counter, counter), true);
        assert!(heard.news && heard.fault.is_none() && !heard.void);
        // The same once more by way of another device, and an old one late.
        for old in 1..=counter {
            let heard = record.hear(&at(old, old), false);
            assert!(!heard.news && heard.fault.is_none());
        }
    }
    assert!(!record.lags());
}

#[test]
fn a_host_that_was_put_back_is_found_when_it_speaks() {
    let mut record = Record::default();
    record.hear(&at(20, 20), true);
    record.hear(&at(50, 50), true);
    let heard = record.hear(&at(20, 20), true);
    assert_eq!((heard.fault, heard.void), (Some(Fault::RolledBack), true));
    assert!(record.lags());
    // It goes on from there; that is no further fault until it reaches what it had said.
    assert_eq!(record.hear(&at(21, 21), true).fault, None);
    let mut other = state(50, clock(&[(1, 22)]));
    other.at_ms += 1;
    assert_eq!(
        record.hear(&said(other), true).fault,
        Some(Fault::Contradicts)
    );
}

#[test]
fn a_higher_number_hides_no_loss() {
    let mut record = Record::default();
    record.hear(&at(5, 50), true);
    let heard = record.hear(&at(6, 49), true);
    assert_eq!((heard.fault, heard.void), (Some(Fault::RolledBack), true));
}

#[test]
fn two_devices_that_were_told_different_things_find_out() {
    let mut record = Record::default();
    record.hear(&at(5, 50), true);
    let heard = record.hear(&at(5, 60), false);
    assert_eq!(heard.fault, Some(Fault::Contradicts));
    assert!(!heard.news && !heard.void);
    let heard = record.hear(&at(4, 60), false);
    assert_eq!(heard.fault, Some(Fault::RolledBack));
}

#[test]
fn a_device_that_is_told_less_than_others_knows_that_it_lags() {
    let mut record = Record::default();
    record.hear(&at(5, 5), true);
    assert!(record.hear(&at(9, 9), false).news);
    assert!(record.lags());
    record.hear(&at(10, 9), true);
    assert!(!record.lags());
}

#[test]
fn a_host_that_lost_everything_shows_it_by_its_new_store() {
    let mut record = Record::default();
    record.hear(&at(50, 50), true);
    let mut anew = state(1, Clock::new());
    anew.store = StoreId([9; 16]);
    anew.at_ms += 100;
    let anew = said(anew);
    let heard = record.hear(&anew, true);
    assert!(heard.news && heard.void);
    assert_eq!(heard.fault, Some(Fault::BeganAnew));
    // What others still pass on of the old store is old, and nothing more.
    let heard = record.hear(&at(50, 50), false);
    assert!(!heard.news && heard.fault.is_none());
}

#[test]
fn only_a_statement_of_that_vault_and_host_is_read() {
    let statement = at(1, 1);
    let (vault, host) = (VAULT, host_key().id());
    assert!(HostStatement::read(statement.bytes(), &vault, &host).is_ok());
    assert_eq!(
        HostStatement::read(statement.bytes(), &VaultId::NONE, &host),
        Err(HostStatementError::WrongVault(VAULT))
    );
    assert_eq!(
        HostStatement::read(statement.bytes(), &vault, &key(1).id()),
        Err(HostStatementError::WrongHost(host))
    );
}

proptest! {
    #[test]
    fn a_host_that_only_grows_is_never_blamed(
        steps in prop::collection::vec((1u64..4, 0u64..4, any::<bool>(), any::<bool>()), 1..20),
    ) {
        let (mut counter, mut seq) = (0, 1);
        let mut all = Vec::new();
        let mut record = Record::default();
        for (more, grown, told, replay) in steps {
            counter += more;
            seq += grown;
            all.push(at(counter, seq));
            prop_assert_eq!(record.hear(&all[all.len() - 1], told).fault, None);
            if replay {
                prop_assert_eq!(record.hear(&all[all.len() / 2], false).fault, None);
            }
        }
    }
}
