//! The fleet, node by node, with what each last proved.

use sqlx::Row as _;

use super::{Store, StoreError, decisions, row, types::FleetNode};

impl Store {
    /// Nodes of the fleet, but no revoked ones.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn fleet_size(&self) -> Result<u32, StoreError> {
        let nodes: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM nodes WHERE status <> 'revoked'")
            .fetch_one(&mut *self.reader().await?)
            .await
            .map_err(StoreError::database("count nodes"))?;
        Ok(u32::try_from(nodes).unwrap_or(u32::MAX))
    }

    /// A page of the fleet by name, without revoked nodes; continue it with the last name. One query for nodes and
    /// evidence: a query for each node costs more than judging it.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Corrupt`].
    pub async fn fleet(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<FleetNode>, StoreError> {
        let rows = sqlx::query(
            "SELECT n.name, n.pool, n.status, n.ek_digest, d.id, d.at, d.case_sha256, e.case_bytes \
             FROM nodes n \
             LEFT JOIN decisions d ON d.id = ( \
                 SELECT newest.id FROM decisions newest \
                 JOIN decision_evidence kept ON kept.decision_id = newest.id \
                 WHERE newest.node = n.name ORDER BY newest.at DESC, newest.seq DESC LIMIT 1) \
             LEFT JOIN decision_evidence e ON e.decision_id = d.id \
             WHERE n.name > $1 AND n.status <> 'revoked' ORDER BY n.name LIMIT $2",
        )
        .bind(after.unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(&mut *self.reader().await?)
        .await
        .map_err(StoreError::database("read the fleet"))?;
        let nodes = rows.iter().map(|found| {
            let has_evidence =
                found.try_get::<Option<String>, _>("id").is_ok_and(|id| id.is_some());
            let evidence = has_evidence.then(|| decisions::evidence(self.objects(), found));
            Ok(FleetNode {
                name: row::get(found, "name")?,
                pool: row::get(found, "pool")?,
                status: row::parse(found, "status")?,
                ek_digest: row::parse(found, "ek_digest")?,
                evidence: evidence.transpose()?.flatten(),
            })
        });
        nodes.collect()
    }
}
