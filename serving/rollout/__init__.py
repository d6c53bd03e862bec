"""Rollouts change the live versions: deploy, rollback, canary, promote, abort."""
