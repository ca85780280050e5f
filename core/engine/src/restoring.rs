//! Bringing a losing version back where the documents are not in watched tables.

use entgldb_replica::id::DocId;
use entgldb_sqlite::{LosingVersion, RestoreError, Restored, losing_version};

use bytes::Bytes;

use crate::driver::Driver;
use crate::host::HostChange;
use crate::node::Node;

impl Node {
    /// Writes a losing version as the application would: into its own store first, if it has one, and then as a change of
    /// its own.
    pub(crate) fn restore_document(
        &self,
        (collection, key): (&str, &str),
        version: Option<u64>,
    ) -> Result<Restored, RestoreError> {
        let LosingVersion { doc, content, restored } =
            losing_version(self.database(), (collection, key), version)?;
        let refused = |message: String| RestoreError::Refused { collection: collection.to_owned(), message };
        let change = match &content {
            Some(content) => HostChange::Put { doc: doc.clone(), content: content.clone() },
            None => HostChange::Delete { doc: doc.clone() },
        };
        let written = match self.documents() {
            Some(documents) => documents.write(&[change]),
            None => {
                let placed = self.ask(move |driver| driver.place_local(doc, content));
                let placed = placed.map_err(|error| error.to_string()).and_then(|placed| placed);
                placed.map_err(refused)?;
                self.record(&[change])
            }
        };
        written.map_err(|error| refused(error.to_string()))?;
        Ok(restored)
    }
}

impl Driver {
    /// Writes a document into the application's store as the application would.
    fn place_local(&mut self, doc: DocId, content: Option<Bytes>) -> Result<(), String> {
        let placed = self.hosted(|hosted| hosted.place_local(doc, content));
        placed.map_err(|error| error.to_string())?
    }
}
