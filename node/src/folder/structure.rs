//! What the local pass found of folders, moves and deletions, on its way into the vault.

use std::path::PathBuf;

use coffer_crdt::files::FileId;

use super::durable::{changed_folders, durable_names};
use super::engine::{Engine, Halt, blocking};
use super::{Contents, FolderVault};
use crate::vault::request::{CommitError, CommitRequest, FolderRow, Operation};

impl<V: FolderVault, C: Contents> Engine<V, C> {
    /// Names are durable before the vault says that they are so: else a loss of power would take them back, and the next
    /// look would take that for somebody's work.
    pub(super) async fn make_names_durable(
        &self,
        rows: &[(FileId, Option<FolderRow>)],
    ) -> Result<(), Halt> {
        let folders = changed_folders(&self.shared.rows(), rows);
        if folders.is_empty() {
            return Ok(());
        }
        let place = self.place()?;
        blocking(move || durable_names(&place, &folders))
            .await?
            .map_err(|error| Halt::Failed(format!("writing to the folder failed: {error}")))
    }

    /// Folders, moves and deletions in one request; if the vault refuses one of them, each by itself.
    pub(super) async fn commit_structure(
        &mut self,
        operations: Vec<Operation>,
        rows: Vec<(FileId, Option<FolderRow>)>,
        recheck: Vec<FileId>,
    ) -> Result<(), Halt> {
        if operations.is_empty() && rows.is_empty() {
            return Ok(());
        }
        let number = self.config.number;
        let request = CommitRequest {
            operations: operations.clone(),
            folder_rows: rows
                .iter()
                .map(|(id, row)| (number, *id, row.clone()))
                .collect(),
            recheck: recheck.clone(),
            ..CommitRequest::default()
        };
        match self.vault.commit(request).await {
            Ok(_) => {
                self.take_rows(rows);
                self.ask_of_unmoved(&operations);
                return Ok(());
            }
            Err(CommitError::NotFound(_) | CommitError::Invalid(_) | CommitError::Exists(_))
                if operations.len() > 1 => {}
            Err(
                CommitError::NotFound(reason)
                | CommitError::Invalid(reason)
                | CommitError::Exists(reason),
            ) => {
                self.refuse_rows(&rows, &reason);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let mut rest = rows;
        for operation in operations {
            let subject = subject(&operation);
            let (own, others): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|(id, _)| Some(*id) == subject);
            rest = others;
            let folder_rows = own
                .iter()
                .map(|(id, row)| (number, *id, row.clone()))
                .collect();
            match self
                .vault
                .commit(CommitRequest {
                    operations: vec![operation],
                    folder_rows,
                    ..CommitRequest::default()
                })
                .await
            {
                Ok(_) => self.take_rows(own),
                Err(
                    CommitError::NotFound(reason)
                    | CommitError::Invalid(reason)
                    | CommitError::Exists(reason),
                ) => self.refuse_rows(&own, &reason),
                Err(error) => return Err(error.into()),
            }
        }
        let folder_rows = rest
            .iter()
            .map(|(id, row)| (number, *id, row.clone()))
            .collect();
        self.vault
            .commit(CommitRequest {
                folder_rows,
                recheck,
                ..CommitRequest::default()
            })
            .await?;
        self.take_rows(rest);
        Ok(())
    }

    /// What the vault shows elsewhere than where it was just moved, for what it was moved into was moved into it meanwhile:
    /// that changes nothing in what is shown, so nobody else will say that it is in question.
    fn ask_of_unmoved(&mut self, operations: &[Operation]) {
        let tree = self.vault.tree();
        for operation in operations {
            if let Operation::MoveFile { id, parent, name } = operation
                && tree.shown(*id).is_some_and(|shown| {
                    shown.parent != tree.representative(*parent) || *shown.name != **name
                })
            {
                self.questions.insert(*id);
            }
        }
    }

    fn refuse_rows(&mut self, rows: &[(FileId, Option<FolderRow>)], reason: &str) {
        for (id, row) in rows {
            // Without a name it would be said of the whole folder.
            let path = match (self.shared.rows().path(*id), row) {
                (Some(path), _) => path,
                (None, Some(row)) => PathBuf::from(&row.name),
                (None, None) => PathBuf::from(id.to_string()),
            };
            self.read_problems
                .insert(path, format!("the vault does not take it: {reason}"));
        }
    }
}

fn subject(operation: &Operation) -> Option<FileId> {
    match operation {
        Operation::CreateFile { id, .. }
        | Operation::CreateCopy { id, .. }
        | Operation::MoveFile { id, .. }
        | Operation::SetContent { id, .. }
        | Operation::SetTime { id, .. }
        | Operation::TrashFile { id }
        | Operation::RestoreFile { id } => Some(*id),
        _ => None,
    }
}
