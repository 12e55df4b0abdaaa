//! The bookkeeping by itself.

use super::*;
use futures::FutureExt;

const LEN: u32 = 1000;

fn board(items: u8) -> Board {
    Board::new((0..items).map(|n| (Hash([n; 32]), LEN, false)))
}

fn device(n: u8) -> DeviceId {
    DeviceId([n; 32])
}

fn batch(board: &Board, peer: Peer) -> Option<Option<Vec<Item>>> {
    board.next_batch(peer, BATCH_BYTES).now_or_never()
}

#[test]
fn what_one_device_lacks_is_asked_of_the_next() {
    let board = board(2);
    let (a, _) = board.join(device(1), 1).unwrap();
    let (b, _) = board.join(device(2), 1).unwrap();
    assert_eq!(batch(&board, a), Some(Some(vec![0, 1])));
    board.refused(0, a);
    assert!(board.arrived(1));
    board.ended(1);
    assert_eq!(batch(&board, a), None, "waits: it has nothing more");
    assert_eq!(batch(&board, b), Some(Some(vec![0])));
    board.refused(0, b);
    assert!(board.finished());
    assert_eq!(board.lost(), [0]);
}

#[test]
fn a_device_that_goes_gives_back_what_it_was_asked_for() {
    let board = board(1);
    let (a, _) = board.join(device(1), 1).unwrap();
    let (b, _) = board.join(device(2), 1).unwrap();
    assert_eq!(batch(&board, a), Some(Some(vec![0])));
    board.leave(a);
    assert_eq!(batch(&board, a), Some(None));
    assert_eq!(batch(&board, b), Some(Some(vec![0])));
}

#[test]
fn a_device_that_sends_wrong_bytes_is_asked_no_more() {
    let board = board(2);
    let (a, _) = board.join(device(1), 5).unwrap();
    let (b, _) = board.join(device(2), 5).unwrap();
    assert_eq!(batch(&board, a), Some(Some(vec![0, 1])));
    assert!(board.arrived(0));
    board.ban(a, Some(0), "wrong bytes");
    board.leave(a);
    assert!(!board.is_live(a));
    assert!(board.join(device(1), 5).is_none());
    assert_eq!(batch(&board, b), Some(Some(vec![1, 0])));
    assert!(board.misbehaved().contains_key(&device(1)));
}

#[test]
fn lost_items_are_hoped_for_again_when_a_device_joins() {
    let board = board(1);
    board.settle();
    assert!(board.finished());
    let (a, _) = board.join(device(1), 1).unwrap();
    assert!(!board.finished());
    assert_eq!(batch(&board, a), Some(Some(vec![0])));
}

#[test]
fn a_batch_is_bounded_in_bytes_and_number() {
    let board = Board::new((0..3000u32).map(|n| (Hash([n as u8; 32]), LEN, false)));
    let (a, _) = board.join(device(1), 1).unwrap();
    assert_eq!(batch(&board, a).unwrap().unwrap().len(), BATCH_BLOBS);
    let board = Board::new((0..9).map(|n| (Hash([n; 32]), 3 << 20, false)));
    let (a, _) = board.join(device(1), 1).unwrap();
    assert_eq!(batch(&board, a).unwrap().unwrap().len(), 2);
}

#[test]
fn a_batch_is_as_large_as_the_device_is_quick_but_never_empty() {
    let board = board(4);
    let (a, _) = board.join(device(1), 1).unwrap();
    let ask = |bytes| board.next_batch(a, bytes).now_or_never().flatten();
    assert_eq!(ask(1), Some(vec![0]));
    assert_eq!(ask(2 * u64::from(LEN)), Some(vec![1, 2]));
    assert_eq!(board.bytes(&[1, 2]), 2 * u64::from(LEN));
}

#[test]
fn what_a_slow_device_was_asked_for_is_asked_of_one_that_has_nothing_to_do() {
    let board = board(3);
    let (slow, _) = board.join(device(1), 1).unwrap();
    let (quick, _) = board.join(device(2), 1).unwrap();
    let (third, _) = board.join(device(3), 1).unwrap();
    assert_eq!(batch(&board, slow), Some(Some(vec![0, 1, 2])));
    assert_eq!(batch(&board, quick), None);
    assert_eq!(board.second_batch(quick, u64::from(LEN) * 2), [0, 1]);
    assert_eq!(board.second_batch(third, BATCH_BYTES), [2]);
    assert!(board.second_batch(slow, BATCH_BYTES).is_empty());
    assert!(board.arrived(0));
    board.ended(0);
    assert!(!board.arrived(0), "the slow answer is of no use");
    board.leave(slow);
    assert_eq!(
        batch(&board, third),
        None,
        "item 1 is still asked of the quick one"
    );
    board.refused(2, third);
    board.refused(1, quick);
    assert_eq!(batch(&board, third), Some(Some(vec![1])));
    assert_eq!(batch(&board, quick), Some(Some(vec![2])));
}

#[test]
fn a_first_device_that_lacks_it_leaves_the_second_one_asked() {
    let board = board(1);
    let (slow, _) = board.join(device(1), 1).unwrap();
    let (quick, _) = board.join(device(2), 1).unwrap();
    assert_eq!(batch(&board, slow), Some(Some(vec![0])));
    assert_eq!(board.second_batch(quick, BATCH_BYTES), [0]);
    board.refused(0, slow);
    assert!(!board.finished());
    assert!(board.arrived(0));
    board.ended(0);
    assert!(board.finished() && board.lost().is_empty());
}

#[test]
fn what_cannot_be_read_here_is_fetched() {
    let board = Board::new([(Hash([1; 32]), LEN, true)]);
    let (a, _) = board.join(device(1), 1).unwrap();
    assert_eq!(batch(&board, a), None);
    assert_eq!(board.next_local(), Some(0));
    board.not_local(0);
    assert_eq!(batch(&board, a), Some(Some(vec![0])));
}

#[test]
fn an_aborted_transfer_takes_no_more_answers() {
    let board = board(3);
    let (a, _) = board.join(device(1), 1).unwrap();
    assert_eq!(batch(&board, a), Some(Some(vec![0, 1, 2])));
    assert!(board.arrived(0));
    board.abort();
    board.ended(0);
    board.refused(1, a);
    board.ban(a, Some(2), "wrong bytes");
    board.leave(a);
    assert!(board.finished());
    assert_eq!(batch(&board, a), Some(None));
    assert!(board.join(device(2), 1).is_none());
}
