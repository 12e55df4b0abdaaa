//! The conversation by which whoever has the 24 words gets a vault's grants, and a new device of theirs in: both sides.
//!
//! The machines in [`coffer_protocol::recovery`] decide; this carries their bytes. Devices and relay hosts answer alike;
//! what differs is [`Keeps`].

use std::time::Duration;

use coffer_protocol::identity::{DeviceId, VaultId};
use coffer_protocol::recovery::{
    Asker, AskerStep, Keeper, KeeperStep, MAX_RECOVER_GRANTS, RECOVER_TIMEOUT_MS, RecoverError,
    RecoveryKey,
};
use coffer_protocol::version;
use futures::{AsyncReadExt, AsyncWriteExt};

use crate::net::{Net, Stream, StreamProtocol, read_frame, write_frame};
use crate::relay::take_leave;
use crate::service::random;

/// Who keeps vaults, and can be asked for one.
pub trait Keeps: Sync {
    /// All grants of a vault, if it is kept here and this is its recovery key.
    fn look_up(
        &self,
        vault: VaultId,
        recovery: DeviceId,
    ) -> impl Future<Output = Result<Vec<Vec<u8>>, RecoverError>> + Send;

    /// Takes in grants; whether the asking device is in the vault then.
    fn store(
        &self,
        vault: VaultId,
        asker: DeviceId,
        grants: Vec<Vec<u8>>,
    ) -> impl Future<Output = Result<(), RecoverError>> + Send;
}

/// Answers one stream to its end. Says whether a device was taken in.
pub async fn answer(keeps: &impl Keeps, me: DeviceId, stream: Stream) -> bool {
    let asker = DeviceId(stream.device());
    let mut side = Keeper::new(me, asker);
    let (mut read, mut write) = stream.split();
    let patience = Duration::from_millis(RECOVER_TIMEOUT_MS);
    let mut taken = false;
    loop {
        let mut frame = Vec::new();
        let limit = side.message_limit();
        let heard = tokio::time::timeout(patience, read_frame(&mut read, &mut frame, limit)).await;
        let Ok(Ok(true)) = heard else { return taken };
        let mut steps = side.on_message(&frame, &mut random());
        drop(frame);
        while !steps.is_empty() {
            let mut next = Vec::new();
            for step in steps {
                match step {
                    KeeperStep::Send(bytes) => {
                        let sent = async {
                            write_frame(&mut write, &bytes, MAX_RECOVER_GRANTS).await?;
                            write.flush().await.map_err(crate::net::FrameError::from)
                        };
                        if !matches!(tokio::time::timeout(patience, sent).await, Ok(Ok(()))) {
                            return taken;
                        }
                    }
                    KeeperStep::LookUp { vault, recovery } => {
                        next.extend(side.found(keeps.look_up(vault, recovery).await));
                    }
                    KeeperStep::Store { vault, grants } => {
                        let outcome = keeps.store(vault, asker, grants).await;
                        taken |= outcome.is_ok();
                        next.extend(side.stored(outcome));
                    }
                    KeeperStep::Over => {
                        take_leave(read, write).await;
                        return taken;
                    }
                }
            }
            steps = next;
        }
    }
}

/// Asks a connected keeper for the grants of a vault. `admit` makes of them those that are sent back, with this device's
/// own among them; `None` ends it there.
pub async fn ask<E>(
    net: &Net,
    (me, keeper): (DeviceId, DeviceId),
    vault: VaultId,
    key: &RecoveryKey,
    admit: impl FnOnce(Vec<Vec<u8>>) -> Result<Option<Vec<Vec<u8>>>, E>,
) -> Result<(), E>
where
    E: From<RecoverError>,
{
    let gone = || E::from(RecoverError::Disconnected);
    let protocol = StreamProtocol::new(version::RECOVER_PROTOCOL);
    let stream = net.open(keeper.0, protocol).await.map_err(|_| gone())?;
    let (mut read, mut write) = stream.split();
    let (mut side, steps) = Asker::new(me, keeper, vault, key.clone());
    let mut steps = std::collections::VecDeque::from(steps);
    let mut admit = Some(admit);
    // The keeper waits this long for us; we give it a little longer, as its disk may be slow.
    let patience = Duration::from_millis(2 * RECOVER_TIMEOUT_MS);
    loop {
        while let Some(step) = steps.pop_front() {
            match step {
                AskerStep::Send(bytes) => {
                    let sent = write_frame(&mut write, &bytes, MAX_RECOVER_GRANTS).await;
                    sent.map_err(|_| gone())?;
                }
                AskerStep::Grants(grants) => {
                    let Some(admit) = admit.take() else {
                        return Err(RecoverError::Malformed.into());
                    };
                    match admit(grants)? {
                        Some(all) => steps.extend(side.bind(all)),
                        None => {
                            let _ = write.close().await;
                            return Ok(());
                        }
                    }
                }
                AskerStep::Bound => {
                    let _ = write.close().await;
                    return Ok(());
                }
                AskerStep::Failed(why) => return Err(why.into()),
            }
        }
        let mut frame = Vec::new();
        let heard = read_frame(&mut read, &mut frame, side.message_limit());
        match tokio::time::timeout(patience, heard).await {
            Ok(Ok(true)) => steps.extend(side.on_message(&frame)),
            _ => return Err(gone()),
        }
    }
}
