//! Which function answers which request.

use std::pin::Pin;
use std::sync::Arc;

use super::{
    Node, backup, check, conflicts, devices, documents, events, export, files, folders, hosts,
    limits, lines, locking, pairing, purging, recovering, recovery, status, storage, trash,
    unsyncing, versions,
};
use crate::control::{ControlError, ErrorKind, Reply, Request, Service, Session};
use crate::folder::Release;

/// The node as the control socket sees it.
pub struct Answers(pub Arc<Node>);

impl Service for Answers {
    fn handle(
        &self,
        request: Request,
        session: Session,
    ) -> Pin<Box<dyn Future<Output = Result<Reply, ControlError>> + Send + '_>> {
        Box::pin(async {
            let result = unless_locked(&self.0, request, session).await;
            if let Err(error) = &result
                && matches!(error.kind, ErrorKind::Io | ErrorKind::DiskFull)
                && let Ok(running) = self.0.vault().await
            {
                // It may have been a reader that failed: then nobody else notices.
                let vault = running.vault.clone();
                drop(running);
                let _ = tokio::task::spawn_blocking(move || vault.check_store()).await;
            }
            result
        })
    }
}

/// A locked device answers next to nothing; what is under way when it is locked ends with it.
async fn unless_locked(
    node: &Arc<Node>,
    request: Request,
    session: Session,
) -> Result<Reply, ControlError> {
    match request {
        Request::Status | Request::Stop | Request::Lock | Request::Unlock => {
            answer(node, request, session).await
        }
        // It holds up a lock until it is done: a file half replaced would be of no use to anybody.
        Request::Protect { .. } => {
            node.locking.check()?;
            answer(node, request, session).await
        }
        _ => {
            node.locking.check()?;
            let ends = node.locking.ends_requests();
            tokio::select! {
                // What ended because the vault did says why.
                result = answer(node, request, session) => match node.locking.check() {
                    Err(locked) if result.is_err() => Err(locked),
                    _ => result,
                },
                () = ends => Err(super::awake::locked()),
            }
        }
    }
}

async fn answer(
    node: &Arc<Node>,
    request: Request,
    mut session: Session,
) -> Result<Reply, ControlError> {
    let session = &mut session;
    match request {
        Request::Init { device_name } => {
            let running = node.found(device_name).await?;
            let device = status::device_row(node, &running, running.vault.device()).await?;
            let vault = running
                .vault
                .inspect(|core| core.state().vault)
                .await
                .map_err(super::running::commit_error)?;
            Ok(Reply::Created {
                vault: vault.to_string(),
                device,
            })
        }
        Request::Status => status::status(node).await,
        Request::Stop => {
            node.stop_soon();
            Ok(Reply::Done)
        }
        Request::Pair { valid_for_s } => pairing::invite(node, valid_for_s, session).await,
        Request::Join {
            with,
            at,
            device_name,
        } => pairing::join(node, with, at, device_name, session).await,
        Request::RecoveryShow => recovery::show(node, session).await,
        Request::RecoveryRenew { words } => recovery::renew(node, words, session).await,
        Request::RecoveryRehearse { with } => recovery::rehearse(node, with).await,
        Request::Recover {
            with,
            at,
            device_name,
            backup: None,
        } => recovering::recover(node, with, at, device_name, session).await,
        Request::Recover {
            with,
            at,
            device_name,
            backup: Some(dir),
        } => backup::recover(node, with, (dir, at), device_name, session).await,
        Request::Backup { dir } => backup::make(node, dir, session).await,
        Request::BackupList { dir } => backup::list(dir).await,
        Request::BackupVerify { dir, with } => backup::verify(node, dir, with, session).await,
        Request::BackupRestore {
            dir,
            to,
            paths,
            at,
            with,
        } => backup::restore(node, (dir, to), paths, at, with, session).await,
        Request::DeviceList => status::devices(node).await,
        Request::DeviceRevoke {
            device,
            undo,
            words,
        } => devices::revoke(node, device, undo, words, session).await,
        Request::DeviceRole {
            device,
            role,
            words,
        } => devices::role(node, device, role, words).await,
        Request::DeviceLog => devices::log(node).await,
        Request::KeyRotate => devices::rotate(node).await,
        Request::KeySchedule { every } => super::relocking::set(node, every).await,
        Request::Erase => super::erasing::erase(node, session).await,
        Request::Lock => locking::lock(node).await,
        Request::Unlock => locking::unlock(node, session).await,
        Request::Protect { by } => locking::protect(node, by, session).await,
        Request::DocPut {
            doctype,
            id,
            value,
            texts,
            base,
        } => documents::put(node, doctype, id, value, texts, base).await,
        Request::DocEdit {
            doctype,
            id,
            patch,
            texts,
            base,
            create,
        } => documents::edit(node, doctype, id, patch, texts, base, create).await,
        Request::DocLines {
            mode,
            texts,
            create,
        } => lines::lines(node, mode, texts, create, session).await,
        Request::DocGet { doctype, id, at } => documents::get(node, doctype, id, at).await,
        Request::DocFind {
            doctype,
            filters,
            text,
            limit,
        } => documents::find(node, doctype, filters, text, limit, session).await,
        Request::DocList { doctype, limit } => documents::list(node, doctype, limit, session).await,
        Request::DocDelete { doctype, id } => documents::delete(node, doctype, id).await,
        Request::DocPurge { doctype, id } => purging::purge(node, doctype, id, session).await,
        Request::DocHistory { doctype, id } => documents::history(node, doctype, id).await,
        Request::FileAdd { locals, to } => files::add(node, locals, to, session).await,
        Request::FileList {
            path,
            recursive,
            trash,
        } => files::list(node, path, recursive, trash, session).await,
        Request::FileGet {
            path,
            dest,
            at,
            overwrite,
        } => files::get(node, path, dest, at, overwrite, session).await,
        Request::FileMove { from, to } => files::move_to(node, from, to).await,
        Request::FileDelete { path } => files::delete(node, path).await,
        Request::FileRestore { path, at } => files::restore(node, path, at).await,
        Request::FileHistory { path } => files::history(node, path).await,
        Request::FileTag {
            path,
            revision,
            label,
        } => files::tag(node, path, revision, label).await,
        Request::FileUntag { path, revision } => files::untag(node, path, revision).await,
        Request::TrashList => trash::list(node, session).await,
        Request::TrashRestore { path } => trash::restore(node, path).await,
        Request::TrashEmpty { paths } => trash::empty(node, paths, session).await,
        Request::VersionsShow => versions::show(node).await,
        Request::VersionsSet { change } => versions::set(node, change, session).await,
        Request::FolderAdd { dir, to } => folders::add(node, dir, to, session).await,
        Request::FolderList => folders::list(node).await,
        Request::FolderRemove { dir } => unsyncing::remove(node, dir, session).await,
        Request::FolderIgnored { path, is_folder } => {
            super::ignored::explain(node, path, is_folder).await
        }
        Request::FolderRescan { dir } => folders::rescan(node, dir).await,
        Request::FolderConfirm { dir } => folders::release(node, dir, Release::Meant).await,
        Request::FolderUndo { dir } => folders::release(node, dir, Release::Undo).await,
        Request::FolderConflicts { dir } => conflicts::list(node, dir).await,
        Request::FolderSettle { path, local, keep } => {
            conflicts::settle(node, path, local, keep).await
        }
        Request::LimitsShow => limits::show(node).await,
        Request::LimitsSet { up, down } => limits::set(node, up, down).await,
        Request::Pause { for_s } => limits::pause(node, for_s).await,
        Request::Resume => limits::resume(node).await,
        Request::Check => check::check(node, session).await,
        Request::StorageShow => storage::show(node).await,
        Request::StorageSet { path, keep } => storage::set(node, path, keep).await,
        Request::StorageLimit { bytes } => storage::limit(node, bytes).await,
        Request::HostAdd {
            invitation,
            name,
            at,
        } => hosts::add(node, &invitation, name, at, session).await,
        Request::HostRemove {
            host,
            without_erasing,
        } => hosts::remove(node, &host, without_erasing, session).await,
        Request::HostList => hosts::list(node).await,
        Request::Export { dir } => export::export(node, dir, session).await,
        Request::Events { doctype, values } => events::events(node, doctype, values, session).await,
    }
}
