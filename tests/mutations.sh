#!/usr/bin/env bash
# Proves that the tests notice: breaks the code on purpose, one thing at a time, and expects a test to fail each time.
#
#   tests/mutations.sh            all mutations
#   tests/mutations.sh NAME...    some of them; `tests/mutations.sh list` names them
#
# What it does
#   Each mutation is one small edit of the sources: an exact text, which must occur exactly once in its file, is
#   replaced by another. The edit is made in a scratch copy of the tree (in a temporary folder, removed at the end),
#   never in the tree itself. Then the narrowest test command that must notice is run there. It must compile, and fail.
#   A text that is no longer found is an error: whoever changes that line brings the mutation along.
#
# The mutations
#   fsync      a commit is acknowledged before it is synced              → simulation: a device announces what its disk lacks
#   mac        the proofs of a pairing are not compared                  → protocol: a wrong secret pairs
#   signature  an entry's signature is not checked                       → protocol: a forged entry is taken
#   cycle      in a cycle of moves, any member gives way, not the latest → crdt: the tree depends on the order of arrival
#   clock      a copied data folder goes on writing the same log         → simulation: numbers are given out twice, a log forks
#   stamps     after a restart the clock forgets what it gave out        → crdt and simulation: stamps go back
#   brake      however much disappears from a folder is believed         → node: half of a folder is deleted elsewhere
#   twice      a change that is there counts as applied again            → crdt: a duplicate is no duplicate
#   rest       a file is read while it is being written                  → folder: half of it comes into the vault
#   place      a content is written under its name, not renamed to it    → folder: a part of it can be seen
#   revoked    a device that was put out may still write             → protocol: its log stays open
#   wrapped    a new key is sealed to a device that was put out        → protocol: it reads what is written after
#   cutoff     entries count however far they are beyond the cutoff    → simulation: a thief's entry is taken
#   entrykey   entries of a log are sealed under one key                 → protocol: two plaintexts under one nonce
#   turns      of two nodes with one key only the first is talked to     → node: the other never has its turn
#   serve      a host goes on serving a device that was put out       → node: it keeps what such a device brings
#   evict      what others hold is relied on without confirmation        → protocol: devices rely on each other, none keeps it
#   quota      a host keeps contents beyond what a vault may store       → node: the store takes one too many
#   free       a host frees what one device names no longer              → protocol: it goes while another still names it
#   originals  entries go for a range that only its maker compared       → protocol: a thief of one device rewrites its log
#   purged     changes to a purged document are taken all the same       → node: it comes back
#
# Needs bash, cp and cargo. Builds in target/mutations (or COFFER_MUTATIONS_TARGET_DIR), which it keeps: the first time all
# dependencies are built, later it takes some five minutes on two cores. Exit code 0: every mutation was noticed.
set -euo pipefail

tree=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Not the tree's own target folder: cargo tells packages apart by their place within the workspace, so it would take a
# mutant's build for the tree's.
export CARGO_TARGET_DIR=${COFFER_MUTATIONS_TARGET_DIR:-$tree/target/mutations}
export RUST_BACKTRACE=0
# A mutant may also hang: that is noticed, too.
limit_s=600

names=(fsync mac signature cycle clock stamps twice brake rest place evict quota free revoked wrapped cutoff entrykey turns serve originals purged)

# Sets file, old, new and the test command of one mutation.
mutation() {
    case $1 in
    fsync)
        file=node/src/vault/core.rs
        old='transaction.commit().map_err(StoreError::from)?;'
        new='let _ = transaction.set_durability(redb::Durability::None); transaction.commit().map_err(StoreError::from)?;'
        command=(env COFFER_SIM_SEEDS=0..2 cargo test -p coffer-tests --test simulation fleets)
        ;;
    mac)
        file=protocol/src/pairing/proof.rs
        old='blake3::Hash::from_bytes(*a) == blake3::Hash::from_bytes(*b)'
        new='blake3::Hash::from_bytes(*a) == blake3::Hash::from_bytes(*b) || a.len() == b.len()'
        command=(cargo test -p coffer-protocol --lib pairing)
        ;;
    signature)
        file=protocol/src/log/entry.rs
        old='.map_err(|_| EntryError::BadSignature)'
        new='.map_err(|_| EntryError::BadSignature).or(Ok(()))'
        command=(cargo test -p coffer-protocol --lib log)
        ;;
    cycle)
        file=crdt/src/tree/standing.rs
        old='let latest = self.latest_of_cycle(member);'
        new='let _ = self.latest_of_cycle(member); let latest = member;'
        command=(cargo test -p coffer-crdt --lib tree)
        ;;
    clock)
        file=node/src/vault/founding.rs
        old='.as_deref() != Some(binding)'
        new='.as_deref() != Some(binding) && binding.is_empty()'
        command=(env COFFER_SIM_SEEDS=0..8 cargo test -p coffer-tests --test simulation fleets)
        ;;
    stamps)
        file=crdt/src/files/stamp.rs
        old='        Hlc { last }'
        new='        Hlc { last: last.min(Stamp(0)) }'
        command=(env COFFER_SIM_SEEDS=0..8 cargo test -p coffer-tests --test simulation fleets)
        ;;
    twice)
        file=crdt/src/document.rs
        old='return Ok(Applied::Duplicate);'
        new='return Ok(Applied::Done);'
        command=(cargo test -p coffer-crdt --test documents)
        ;;
    brake)
        file=node/src/folder/brake.rs
        old='count > FEW && count as u64 * one_in > files'
        new='count > FEW && count as u64 * one_in > files && files == u64::MAX'
        command=(cargo test -p coffer-node --lib folder::tests::braking::half)
        ;;
    rest)
        file=node/src/folder/local.rs
        old='if self.rests(&read, now_ns) {'
        new='if self.rests(&read, now_ns) || read.kind == Kind::File {'
        command=(cargo test -p coffer-node --lib folder::tests::running::a_file_is_not_read)
        ;;
    place)
        file=node/src/folder/placing.rs
        old='match self.place.put(&tmp, temporary, &folder, &want.name) {'
        new='match std::fs::copy(self.place.tmp_path(temporary), self.place.path().join(&want.name)).and_then(|_| tmp.unlink(temporary)) {'
        command=(cargo test -p coffer-node --lib folder::tests::placing)
        ;;
    revoked)
        file=protocol/src/grants/reading.rs
        old='None if self.former.contains_key(&writer.device) => Writing::Closed {'
        new='None if self.former.contains_key(&writer.device) && upto.is_none() => Writing::Open, None if self.former.contains_key(&writer.device) => Writing::Closed {'
        command=(cargo test -p coffer-protocol --lib grants)
        ;;
    wrapped)
        file=protocol/src/grants/reading.rs
        old='if let Some(device) = self.devices.remove(&revocation.device) {'
        new='if let Some(device) = self.devices.get(&revocation.device).cloned() {'
        command=(cargo test -p coffer-protocol --lib grants)
        ;;
    cutoff)
        file=node/src/vault/named.rs
        old='Ok(ends.iter().any(|(end, _)| seq <= *end))'
        new='Ok(ends.iter().any(|(end, _)| seq <= *end) || seq > 0)'
        command=(env COFFER_SIM_SEEDS=0..12 cargo test -p coffer-tests --test simulation fleets)
        ;;
    entrykey)
        file=protocol/src/log/entry.rs
        old='rng.fill_bytes(&mut salt);'
        new='rng.fill_bytes(&mut salt[..0]);'
        command=(cargo test -p coffer-protocol --lib log::tests::no_two)
        ;;
    turns)
        file=node/src/net/turns.rs
        old='let later = present.keys().find(|one| **one > turn.of);'
        new='let later = present.keys().find(|one| **one == turn.of);'
        command=(cargo test -p coffer-node --lib net::turns)
        ;;
    serve)
        file=node/src/relay/resident/taking.rs
        old='*self.roles.write().unwrap_or_else(PoisonError::into_inner) = roles.clone();'
        new='if roles.len() >= before.len() { *self.roles.write().unwrap_or_else(PoisonError::into_inner) = roles.clone(); }'
        command=(cargo test -p coffer-node --lib relay::tests::admission)
        ;;
    originals)
        file=protocol/src/ranges/rule.rs
        old='compared && all_have_it'
        new='all_have_it || compared'
        command=(cargo test -p coffer-protocol --lib ranges)
        ;;
    purged)
        file=node/src/vault/remote.rs
        old='if self.is_purged(key, &change.doctype)? {'
        new='if self.is_purged(key, &change.doctype)? && change.bytes.is_empty() {'
        command=(cargo test -p coffer-node --lib purging)
        ;;
    evict)
        file=protocol/src/eviction.rs
        old='held.has_seen(&own.device) >= own.unpinned_since'
        new='held.has_seen(&own.device) <= u64::MAX'
        command=(cargo test -p coffer-protocol --lib eviction)
        ;;
    quota)
        file=node/src/relay/store/quota.rs
        old='self.bytes().saturating_add(charge(len)) <= quota'
        new='self.bytes().saturating_add(charge(len)) <= quota || len > 0'
        command=(cargo test -p coffer-node --lib relay::store::embedded)
        ;;
    free)
        file=protocol/src/relay/freeing.rs
        old='None => return false,'
        new='None => continue,'
        command=(cargo test -p coffer-protocol --lib relay)
        ;;
    *)
        echo "there is no mutation \"$1\"; there are: ${names[*]}" >&2
        exit 2
        ;;
    esac
}

# Replaces $old by $new in $1; fails unless it is there exactly once.
edit() {
    local text rest
    text=$(cat "$1"; printf x)
    text=${text%x}
    rest=${text/"$old"/}
    if [[ $rest == "$text" ]]; then
        echo "mutations.sh: $file no longer has this text, so the mutation must be brought along: $old" >&2
        exit 2
    fi
    if [[ $rest == *"$old"* ]]; then
        echo "mutations.sh: $file has this text more than once: $old" >&2
        exit 2
    fi
    printf '%s' "${text/"$old"/"$new"}" >"$1"
}

if [[ ${1:-} == list ]]; then
    printf '%s\n' "${names[@]}"
    exit
fi
[[ $# -eq 0 ]] || names=("$@")
for name in "${names[@]}"; do
    mutation "$name"
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
for part in "$tree"/*; do
    [[ $part == "$tree/target" ]] || cp -a "$part" "$scratch/"
done
cd "$scratch"
# Newer than whatever an earlier run left in the target folder.
find . -name '*.rs' -exec touch {} +

unnoticed=()
for name in "${names[@]}"; do
    mutation "$name"
    cp -p "$file" "$scratch/original"
    edit "$file"
    echo "== $name: $file, then: ${command[*]}"
    if ! "${command[@]}" --no-run >"$scratch/log" 2>&1; then
        tail -n 30 "$scratch/log" >&2
        echo "mutations.sh: the mutation \"$name\" does not compile" >&2
        exit 2
    fi
    if timeout "$limit_s" "${command[@]}" >"$scratch/log" 2>&1; then
        echo "   NOT NOTICED"
        unnoticed+=("$name")
    else
        echo "   noticed: $(grep -A 1 -m 1 'panicked at' "$scratch/log" | tail -n 1 | cut -c 1-140)"
    fi
    cp "$scratch/original" "$file"
    touch "$file"
done

if [[ ${#unnoticed[@]} -gt 0 ]]; then
    echo "mutations.sh: no test notices: ${unnoticed[*]}" >&2
    exit 1
fi
echo "all ${#names[@]} mutations were noticed"
