//! What a [`Change`] makes of a sandbox; the same for every database.

use types::Sandbox;

use crate::Change;

impl Change {
    /// The sandbox as it is after this change; `None` if a condition does not hold or the state
    /// machine forbids it. Nothing changes any more about one that is destroyed.
    pub(crate) fn applied_to(&self, current: &Sandbox) -> Option<Sandbox> {
        let state = self.state.unwrap_or(current.state);
        let allowed = !current.state.is_final()
            && (state == current.state || current.state.may_become(state))
            && (self.only_from.is_empty() || self.only_from.contains(&current.state))
            && self.generation.is_none_or(|wanted| wanted == current.generation);
        if !allowed {
            return None;
        }
        let mut next = current.clone();
        next.state = state;
        next.ended_reason = current.ended_reason.or(self.ended_reason);
        if let Some(vm_id) = &self.vm_id {
            next.vm_id = Some(vm_id.clone());
        }
        next.answered = self.answered.unwrap_or(current.answered);
        next.expires_at = self.expires_at.unwrap_or(current.expires_at);
        Some(next)
    }
}
