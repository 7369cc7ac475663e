CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL,
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
CREATE TABLE namespaces (
	name VARCHAR NOT NULL, folded VARCHAR,
	CONSTRAINT pk_namespaces PRIMARY KEY (name)
);
CREATE TABLE adapters (
	id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	namespace VARCHAR NOT NULL,
	description VARCHAR NOT NULL,
	tags VARCHAR NOT NULL,
	visibility VARCHAR NOT NULL,
	created_at DATETIME NOT NULL,
	updated_at DATETIME NOT NULL,
	deleted_at DATETIME,
	next_number INTEGER NOT NULL,
	downloads INTEGER NOT NULL, moved_to INTEGER, folded VARCHAR, version_count INTEGER DEFAULT '0' NOT NULL,
	CONSTRAINT pk_adapters PRIMARY KEY (id),
	CONSTRAINT uq_adapters_name UNIQUE (name)
);
CREATE INDEX ix_adapters_namespace ON adapters (namespace);
CREATE TABLE revisions (
	digest VARCHAR NOT NULL,
	manifest BLOB NOT NULL,
	CONSTRAINT pk_revisions PRIMARY KEY (digest)
);
CREATE TABLE versions (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	adapter_id INTEGER NOT NULL,
	number INTEGER NOT NULL,
	digest VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	created_at DATETIME NOT NULL,
	created_by VARCHAR NOT NULL,
	method VARCHAR NOT NULL,
	rank INTEGER,
	targets VARCHAR NOT NULL,
	traits VARCHAR NOT NULL,
	parameters BIGINT NOT NULL,
	size BIGINT NOT NULL,
	weights VARCHAR NOT NULL,
	base_id VARCHAR,
	base_name VARCHAR,
	base_status VARCHAR NOT NULL,
	findings INTEGER NOT NULL,
	downloads INTEGER NOT NULL, state_generation INTEGER DEFAULT '0' NOT NULL, state_reason VARCHAR, state_successor VARCHAR, state_at DATETIME, state_by VARCHAR, bound_base VARCHAR, alpha FLOAT,
	CONSTRAINT fk_versions_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id),
	CONSTRAINT fk_versions_digest FOREIGN KEY(digest) REFERENCES revisions (digest),
	CONSTRAINT uq_versions_adapter_id_digest UNIQUE (adapter_id, digest),
	CONSTRAINT uq_versions_adapter_id_number UNIQUE (adapter_id, number)
);
CREATE INDEX ix_versions_base ON versions (base_id, adapter_id);
CREATE INDEX ix_versions_declared ON versions (base_name, base_status);
CREATE INDEX ix_versions_digest ON versions (digest);
CREATE INDEX ix_versions_number ON versions (number);
CREATE INDEX ix_versions_parameters ON versions (parameters);
CREATE TABLE version_details (
	version_id INTEGER NOT NULL,
	spec BLOB NOT NULL,
	report BLOB NOT NULL,
	forced VARCHAR,
	CONSTRAINT pk_version_details PRIMARY KEY (version_id),
	CONSTRAINT fk_version_details_version_id FOREIGN KEY(version_id) REFERENCES versions (id) ON DELETE CASCADE
);
CREATE TABLE terms (
	id INTEGER NOT NULL,
	field VARCHAR NOT NULL,
	text VARCHAR NOT NULL,
	CONSTRAINT pk_terms PRIMARY KEY (id),
	CONSTRAINT uq_terms_field_text UNIQUE (field, text)
);
CREATE TABLE postings (
	term_id INTEGER NOT NULL,
	version_id INTEGER NOT NULL,
	CONSTRAINT pk_postings PRIMARY KEY (term_id, version_id),
	CONSTRAINT fk_postings_term_id FOREIGN KEY(term_id) REFERENCES terms (id),
	CONSTRAINT fk_postings_version_id FOREIGN KEY(version_id) REFERENCES versions (id) ON DELETE CASCADE
)
 WITHOUT ROWID;
CREATE INDEX ix_postings_version ON postings (version_id, term_id);
CREATE TABLE aliases (
	adapter_id INTEGER NOT NULL,
	alias VARCHAR NOT NULL,
	version_id INTEGER,
	generation INTEGER NOT NULL,
	moved_at DATETIME NOT NULL,
	moved_by VARCHAR NOT NULL, folded VARCHAR,
	CONSTRAINT pk_aliases PRIMARY KEY (adapter_id, alias),
	CONSTRAINT fk_aliases_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id),
	CONSTRAINT fk_aliases_version_id FOREIGN KEY(version_id) REFERENCES versions (id)
);
CREATE INDEX ix_aliases_version_id ON aliases (version_id);
CREATE TABLE metric_values (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	version_id INTEGER NOT NULL,
	metric VARCHAR NOT NULL,
	value FLOAT NOT NULL,
	logged_at DATETIME NOT NULL,
	logged_by VARCHAR NOT NULL, base_id VARCHAR, task VARCHAR, task_version VARCHAR, task_hash VARCHAR, filter VARCHAR, stderr FLOAT, n BIGINT, direction VARCHAR, dataset VARCHAR, step BIGINT, harness VARCHAR, harness_version VARCHAR, harness_commit VARCHAR, chat_template VARCHAR, format VARCHAR, file_digest VARCHAR, samples_digest VARCHAR, withdrawn_at DATETIME, withdrawn_by VARCHAR, withdrawn_reason VARCHAR, settings VARCHAR,
	CONSTRAINT fk_metric_values_version_id FOREIGN KEY(version_id) REFERENCES versions (id) ON DELETE CASCADE
);
CREATE TABLE metric_summaries (
	version_id INTEGER NOT NULL,
	metric VARCHAR NOT NULL,
	newest FLOAT NOT NULL,
	highest FLOAT NOT NULL,
	lowest FLOAT NOT NULL,
	CONSTRAINT pk_metric_summaries PRIMARY KEY (version_id, metric),
	CONSTRAINT fk_metric_summaries_version_id FOREIGN KEY(version_id) REFERENCES versions (id) ON DELETE CASCADE
);
CREATE INDEX ix_metric_summaries_highest ON metric_summaries (metric, highest);
CREATE INDEX ix_metric_summaries_lowest ON metric_summaries (metric, lowest);
CREATE TABLE events (
	seq INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	at DATETIME NOT NULL,
	"by" VARCHAR NOT NULL,
	kind VARCHAR NOT NULL,
	adapter_id INTEGER,
	name VARCHAR,
	number INTEGER,
	detail VARCHAR NOT NULL,
	CONSTRAINT fk_events_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id)
);
CREATE INDEX ix_events_adapter ON events (adapter_id, seq);
CREATE TABLE files (
	owner VARCHAR NOT NULL,
	digest VARCHAR NOT NULL,
	size BIGINT NOT NULL, unneeded_since DATETIME, stored_by VARCHAR,
	CONSTRAINT pk_files PRIMARY KEY (owner, digest)
);
CREATE INDEX ix_files_digest ON files (digest);
CREATE TABLE weights (
	file_digest VARCHAR NOT NULL,
	weights_digest VARCHAR NOT NULL,
	CONSTRAINT pk_weights PRIMARY KEY (file_digest)
);
CREATE TABLE uploads (
	id VARCHAR NOT NULL,
	owner VARCHAR NOT NULL,
	tenant VARCHAR NOT NULL,
	digest VARCHAR NOT NULL,
	size BIGINT NOT NULL,
	created_by VARCHAR NOT NULL,
	touched_at DATETIME NOT NULL,
	is_finished BOOLEAN NOT NULL,
	CONSTRAINT pk_uploads PRIMARY KEY (id)
);
CREATE INDEX ix_uploads_owner ON uploads (owner, digest);
CREATE INDEX ix_uploads_touched_at ON uploads (touched_at);
CREATE TABLE bases (
	"key" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	id VARCHAR NOT NULL,
	architecture VARCHAR NOT NULL,
	record BLOB NOT NULL,
	summary TEXT NOT NULL,
	created_at DATETIME NOT NULL,
	created_by VARCHAR NOT NULL, visibility VARCHAR DEFAULT 'private' NOT NULL,
	CONSTRAINT uq_bases_id UNIQUE (id)
);
CREATE INDEX ix_bases_architecture ON bases (architecture);
CREATE TABLE base_names (
	name VARCHAR NOT NULL,
	base_id VARCHAR NOT NULL, folded VARCHAR, namespace VARCHAR DEFAULT '' NOT NULL,
	CONSTRAINT pk_base_names PRIMARY KEY (name),
	CONSTRAINT fk_base_names_base_id FOREIGN KEY(base_id) REFERENCES bases (id)
);
CREATE INDEX ix_base_names_base_id ON base_names (base_id);
CREATE TABLE base_files (
	base_id VARCHAR NOT NULL,
	path VARCHAR NOT NULL,
	digest VARCHAR NOT NULL,
	size BIGINT NOT NULL,
	CONSTRAINT pk_base_files PRIMARY KEY (base_id, path),
	CONSTRAINT fk_base_files_base_id FOREIGN KEY(base_id) REFERENCES bases (id)
);
CREATE INDEX ix_base_files_digest ON base_files (digest);
CREATE TABLE answers (
	identity VARCHAR NOT NULL,
	"key" VARCHAR NOT NULL,
	request VARCHAR NOT NULL,
	answer TEXT NOT NULL,
	given_at DATETIME NOT NULL,
	CONSTRAINT pk_answers PRIMARY KEY (identity, "key")
);
CREATE INDEX ix_answers_given_at ON answers (given_at);
CREATE INDEX ix_adapters_moved_to ON adapters (moved_to);
CREATE TABLE commits (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	adapter_id INTEGER NOT NULL,
	digest VARCHAR NOT NULL,
	branch VARCHAR NOT NULL,
	parent_id INTEGER,
	title VARCHAR NOT NULL,
	message VARCHAR NOT NULL,
	author VARCHAR NOT NULL,
	at DATETIME NOT NULL,
	carries INTEGER,
	CONSTRAINT fk_commits_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id),
	CONSTRAINT fk_commits_digest FOREIGN KEY(digest) REFERENCES revisions (digest)
);
CREATE INDEX ix_commits_adapter ON commits (adapter_id, digest);
CREATE INDEX ix_commits_digest ON commits (digest);
CREATE TABLE marks (
	adapter_id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	kind VARCHAR NOT NULL,
	commit_id INTEGER NOT NULL,
	message VARCHAR NOT NULL,
	set_at DATETIME NOT NULL,
	set_by VARCHAR NOT NULL, folded VARCHAR,
	CONSTRAINT pk_marks PRIMARY KEY (adapter_id, name),
	CONSTRAINT fk_marks_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id),
	CONSTRAINT fk_marks_commit_id FOREIGN KEY(commit_id) REFERENCES commits (id)
);
CREATE INDEX ix_marks_commit_id ON marks (commit_id);
CREATE INDEX ix_versions_withdrawn ON versions (weights) WHERE state IN ('quarantined', 'revoked');
CREATE TABLE jobs (
	"key" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	id VARCHAR NOT NULL,
	kind VARCHAR NOT NULL,
	task TEXT NOT NULL,
	namespace VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	needs TEXT NOT NULL,
	priority INTEGER NOT NULL,
	"by" VARCHAR NOT NULL,
	submitted_at DATETIME NOT NULL,
	started_at DATETIME,
	finished_at DATETIME,
	attempts INTEGER NOT NULL,
	result TEXT,
	error TEXT, rights TEXT DEFAULT '{}' NOT NULL,
	CONSTRAINT uq_jobs_id UNIQUE (id)
);
CREATE INDEX ix_jobs_state ON jobs (state, "key");
CREATE INDEX ix_jobs_namespace ON jobs (namespace);
CREATE TABLE job_steps (
	job_key INTEGER NOT NULL,
	step VARCHAR NOT NULL,
	attempt INTEGER NOT NULL,
	runner VARCHAR,
	activity VARCHAR NOT NULL,
	done BIGINT NOT NULL,
	total BIGINT NOT NULL,
	result TEXT,
	CONSTRAINT pk_job_steps PRIMARY KEY (job_key, step),
	CONSTRAINT fk_job_steps_job_key FOREIGN KEY(job_key) REFERENCES jobs ("key")
);
CREATE TABLE job_lines (
	"key" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	job_key INTEGER NOT NULL,
	at DATETIME NOT NULL,
	step VARCHAR NOT NULL,
	text TEXT NOT NULL,
	CONSTRAINT fk_job_lines_job_key FOREIGN KEY(job_key) REFERENCES jobs ("key")
);
CREATE INDEX ix_job_lines_job_key ON job_lines (job_key);
CREATE TABLE runners (
	id VARCHAR NOT NULL,
	host VARCHAR NOT NULL,
	devices VARCHAR NOT NULL,
	tags VARCHAR NOT NULL,
	concurrency INTEGER NOT NULL,
	memory BIGINT NOT NULL,
	beats BIGINT NOT NULL,
	seen_at DATETIME NOT NULL,
	CONSTRAINT pk_runners PRIMARY KEY (id)
);
CREATE TABLE rollouts (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	adapter_id INTEGER NOT NULL,
	alias VARCHAR NOT NULL,
	version_id INTEGER NOT NULL,
	was_number INTEGER NOT NULL,
	was_digest VARCHAR NOT NULL,
	alias_generation INTEGER NOT NULL,
	steps VARCHAR NOT NULL,
	step INTEGER NOT NULL,
	interval INTEGER,
	stage VARCHAR NOT NULL,
	reason VARCHAR,
	generation INTEGER NOT NULL,
	started_at DATETIME NOT NULL,
	started_by VARCHAR NOT NULL,
	step_at DATETIME NOT NULL,
	ended_at DATETIME,
	CONSTRAINT fk_rollouts_version_id FOREIGN KEY(version_id) REFERENCES versions (id) ON DELETE CASCADE
);
CREATE INDEX ix_rollouts_alias ON rollouts (adapter_id, alias);
CREATE INDEX ix_rollouts_version_id ON rollouts (version_id);
CREATE INDEX ix_uploads_open ON uploads (tenant) WHERE is_finished IS 0;
CREATE INDEX ix_uploads_coming ON uploads (digest) WHERE is_finished IS 0;
CREATE UNIQUE INDEX ix_adapters_folded ON adapters (folded);
CREATE UNIQUE INDEX ix_namespaces_folded ON namespaces (folded);
CREATE UNIQUE INDEX ix_base_names_folded ON base_names (folded);
CREATE UNIQUE INDEX ix_aliases_folded ON aliases (adapter_id, folded);
CREATE UNIQUE INDEX ix_marks_folded ON marks (adapter_id, folded);
CREATE TABLE "workers" (
	id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	owner VARCHAR NOT NULL,
	engine VARCHAR NOT NULL,
	version VARCHAR,
	base VARCHAR,
	url VARCHAR,
	slots INTEGER,
	last_event BIGINT,
	lease INTEGER NOT NULL,
	first_at DATETIME NOT NULL,
	reported_at DATETIME NOT NULL,
	is_answering BOOLEAN NOT NULL,
	problems TEXT NOT NULL, max_age INTEGER, gone_at DATETIME, gone_by VARCHAR, gone_reason VARCHAR, base_id VARCHAR,
	CONSTRAINT pk_workers PRIMARY KEY (id),
	CONSTRAINT uq_workers_owner_name UNIQUE (owner, name)
);
CREATE INDEX ix_workers_owner ON workers (owner);
CREATE TABLE residents (
	worker_id INTEGER NOT NULL,
	version_id INTEGER NOT NULL,
	served_as VARCHAR NOT NULL,
	condition VARCHAR NOT NULL,
	since DATETIME NOT NULL,
	last_used DATETIME,
	ended_at DATETIME,
	dropped_at DATETIME,
	reason VARCHAR,
	CONSTRAINT pk_residents PRIMARY KEY (worker_id, version_id, served_as),
	CONSTRAINT fk_residents_worker_id FOREIGN KEY(worker_id) REFERENCES workers (id) ON DELETE CASCADE,
	CONSTRAINT fk_residents_version_id FOREIGN KEY(version_id) REFERENCES versions (id) ON DELETE CASCADE
);
CREATE INDEX ix_residents_version ON residents (version_id);
CREATE TABLE "job_schedules" (
	name VARCHAR NOT NULL,
	cron VARCHAR NOT NULL,
	ordered TEXT NOT NULL,
	namespace VARCHAR NOT NULL,
	"by" VARCHAR NOT NULL,
	created_at DATETIME NOT NULL, rights TEXT DEFAULT '{}' NOT NULL,
	CONSTRAINT pk_job_schedules PRIMARY KEY (namespace, name)
);
CREATE TABLE epochs (
	number INTEGER NOT NULL,
	id VARCHAR NOT NULL,
	began_at DATETIME NOT NULL,
	floor INTEGER NOT NULL,
	secret VARCHAR NOT NULL,
	CONSTRAINT pk_epochs PRIMARY KEY (number)
);
CREATE TABLE recall_claims (
	name VARCHAR NOT NULL,
	digest VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	source VARCHAR NOT NULL,
	at DATETIME NOT NULL,
	CONSTRAINT pk_recall_claims PRIMARY KEY (name, digest)
);
CREATE INDEX ix_base_names_namespace ON base_names (namespace);
CREATE TABLE inspections (
	file_digest VARCHAR NOT NULL,
	inspection INTEGER NOT NULL,
	tensors INTEGER NOT NULL,
	nan BIGINT NOT NULL,
	infinite BIGINT NOT NULL,
	norm FLOAT,
	statistics BLOB NOT NULL,
	CONSTRAINT pk_inspections PRIMARY KEY (file_digest)
);
CREATE TABLE damaged_files (
	digest VARCHAR NOT NULL,
	reason VARCHAR NOT NULL,
	found_at DATETIME NOT NULL,
	CONSTRAINT pk_damaged_files PRIMARY KEY (digest)
);
CREATE TABLE damaged_revisions (
	revision VARCHAR NOT NULL,
	file VARCHAR NOT NULL,
	CONSTRAINT pk_damaged_revisions PRIMARY KEY (revision, file)
);
CREATE INDEX ix_damaged_revisions_file ON damaged_revisions (file);
CREATE TABLE principals (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	kind VARCHAR NOT NULL,
	name VARCHAR NOT NULL,
	namespace VARCHAR,
	created_at DATETIME NOT NULL,
	created_by VARCHAR NOT NULL,
	disabled_at DATETIME,
	CONSTRAINT uq_principals_name UNIQUE (name)
);
CREATE INDEX ix_principals_namespace ON principals (namespace);
CREATE TABLE principal_groups (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	name VARCHAR NOT NULL,
	created_at DATETIME NOT NULL,
	created_by VARCHAR NOT NULL,
	CONSTRAINT uq_principal_groups_name UNIQUE (name)
);
CREATE TABLE group_members (
	group_id INTEGER NOT NULL,
	principal_id INTEGER NOT NULL,
	CONSTRAINT pk_group_members PRIMARY KEY (group_id, principal_id),
	CONSTRAINT fk_group_members_group_id FOREIGN KEY(group_id) REFERENCES principal_groups (id),
	CONSTRAINT fk_group_members_principal_id FOREIGN KEY(principal_id) REFERENCES principals (id)
);
CREATE INDEX ix_group_members_principal_id ON group_members (principal_id);
CREATE TABLE grants (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	principal_id INTEGER,
	group_id INTEGER,
	namespace VARCHAR NOT NULL,
	names VARCHAR NOT NULL,
	permission VARCHAR NOT NULL,
	conditions VARCHAR NOT NULL,
	created_at DATETIME NOT NULL,
	created_by VARCHAR NOT NULL,
	CONSTRAINT fk_grants_principal_id FOREIGN KEY(principal_id) REFERENCES principals (id),
	CONSTRAINT fk_grants_group_id FOREIGN KEY(group_id) REFERENCES principal_groups (id)
);
CREATE INDEX ix_grants_principal_id ON grants (principal_id);
CREATE INDEX ix_grants_group_id ON grants (group_id);
CREATE INDEX ix_grants_namespace ON grants (namespace);
CREATE TABLE accountable_owners (
	namespace VARCHAR NOT NULL,
	principal_id INTEGER NOT NULL,
	set_at DATETIME NOT NULL,
	set_by VARCHAR NOT NULL,
	CONSTRAINT pk_accountable_owners PRIMARY KEY (namespace),
	CONSTRAINT fk_accountable_owners_principal_id FOREIGN KEY(principal_id) REFERENCES principals (id)
);
CREATE TABLE tokens (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	secret_sha256 VARCHAR NOT NULL,
	last_four VARCHAR NOT NULL,
	kind VARCHAR NOT NULL,
	principal_id INTEGER NOT NULL,
	name VARCHAR NOT NULL,
	permissions VARCHAR,
	resources VARCHAR,
	created_at DATETIME NOT NULL,
	created_by VARCHAR NOT NULL,
	expires_at DATETIME,
	revoked_at DATETIME,
	last_used_at DATETIME, external_id INTEGER,
	CONSTRAINT fk_tokens_principal_id FOREIGN KEY(principal_id) REFERENCES principals (id),
	CONSTRAINT uq_tokens_secret_sha256 UNIQUE (secret_sha256),
	CONSTRAINT uq_tokens_principal_id_name UNIQUE (principal_id, name)
);
CREATE TABLE audit_entries (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	at DATETIME NOT NULL,
	action VARCHAR NOT NULL,
	actor VARCHAR NOT NULL,
	namespace VARCHAR,
	resource VARCHAR NOT NULL,
	selector VARCHAR,
	outcome VARCHAR NOT NULL,
	detail TEXT NOT NULL,
	seq INTEGER,
	leaf VARCHAR
);
CREATE INDEX ix_audit_entries_at ON audit_entries (at, id);
CREATE INDEX ix_audit_entries_actor ON audit_entries (actor, at, id);
CREATE INDEX ix_audit_entries_action ON audit_entries (action, at, id);
CREATE INDEX ix_audit_entries_resource ON audit_entries (resource, at, id);
CREATE INDEX ix_audit_entries_namespace ON audit_entries (namespace, at, id);
CREATE UNIQUE INDEX ix_audit_entries_seq ON audit_entries (seq);
CREATE TABLE audit_state (
	id INTEGER NOT NULL,
	origin VARCHAR NOT NULL,
	size INTEGER NOT NULL,
	peaks TEXT NOT NULL,
	"key" VARCHAR,
	holder VARCHAR,
	held_until DATETIME,
	CONSTRAINT pk_audit_state PRIMARY KEY (id)
);
CREATE TABLE audit_checkpoints (
	size INTEGER NOT NULL,
	note TEXT NOT NULL,
	at DATETIME NOT NULL,
	CONSTRAINT pk_audit_checkpoints PRIMARY KEY (size)
);
CREATE TABLE audit_subtrees (
	level INTEGER NOT NULL,
	number INTEGER NOT NULL,
	hash VARCHAR NOT NULL,
	CONSTRAINT pk_audit_subtrees PRIMARY KEY (level, number)
);
CREATE TABLE quotas (
	scope VARCHAR NOT NULL,
	name VARCHAR NOT NULL,
	bytes BIGINT,
	versions BIGINT,
	uploads BIGINT,
	requests BIGINT,
	set_at DATETIME NOT NULL,
	set_by VARCHAR NOT NULL,
	CONSTRAINT pk_quotas PRIMARY KEY (scope, name)
);
CREATE TABLE stored_use (
	scope VARCHAR NOT NULL,
	name VARCHAR NOT NULL,
	bytes BIGINT NOT NULL,
	versions BIGINT NOT NULL,
	CONSTRAINT pk_stored_use PRIMARY KEY (scope, name)
);
CREATE INDEX ix_uploads_by ON uploads (created_by) WHERE is_finished IS 0;
CREATE INDEX ix_aliases_moved_at ON aliases (moved_at);
CREATE TABLE invitations (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	code_sha256 VARCHAR NOT NULL,
	principal_id INTEGER NOT NULL,
	created_at DATETIME NOT NULL,
	created_by VARCHAR NOT NULL,
	expires_at DATETIME NOT NULL,
	ended_at DATETIME,
	CONSTRAINT fk_invitations_principal_id FOREIGN KEY(principal_id) REFERENCES principals (id),
	CONSTRAINT uq_invitations_code_sha256 UNIQUE (code_sha256)
);
CREATE INDEX ix_invitations_principal_id ON invitations (principal_id);
CREATE INDEX ix_metric_values_version ON metric_values (version_id, id);
CREATE INDEX ix_metric_values_task ON metric_values (version_id, task, metric, id);
CREATE INDEX ix_metric_values_file ON metric_values (version_id, file_digest) WHERE file_digest IS NOT NULL;
CREATE INDEX ix_metric_values_logged ON metric_values (version_id, id) WHERE file_digest IS NULL;
CREATE INDEX ix_adapters_visible ON adapters (visibility, name) WHERE deleted_at IS NULL;
CREATE INDEX ix_adapters_updated ON adapters (visibility, updated_at DESC, name) WHERE deleted_at IS NULL;
CREATE INDEX ix_adapters_downloads ON adapters (visibility, downloads DESC, name) WHERE deleted_at IS NULL;
CREATE INDEX ix_adapters_versions ON adapters (visibility, version_count DESC, name) WHERE deleted_at IS NULL;
CREATE INDEX ix_adapters_namespace_updated ON adapters (namespace, visibility, updated_at DESC, name) WHERE deleted_at IS NULL;
CREATE INDEX ix_adapters_namespace_downloads ON adapters (namespace, visibility, downloads DESC, name) WHERE deleted_at IS NULL;
CREATE INDEX ix_adapters_namespace_versions ON adapters (namespace, visibility, version_count DESC, name) WHERE deleted_at IS NULL;
CREATE TABLE issuers (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	name VARCHAR NOT NULL,
	url VARCHAR NOT NULL,
	kind VARCHAR NOT NULL,
	audience VARCHAR NOT NULL,
	created_at DATETIME NOT NULL,
	created_by VARCHAR NOT NULL,
	CONSTRAINT uq_issuers_name UNIQUE (name),
	CONSTRAINT uq_issuers_url UNIQUE (url)
);
CREATE TABLE publishers (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	namespace VARCHAR NOT NULL,
	name VARCHAR NOT NULL,
	issuer_id INTEGER NOT NULL,
	principal_id INTEGER NOT NULL,
	project_id VARCHAR NOT NULL,
	owner_id VARCHAR NOT NULL,
	workflow VARCHAR NOT NULL,
	environment VARCHAR,
	branch VARCHAR,
	created_at DATETIME NOT NULL,
	created_by VARCHAR NOT NULL,
	CONSTRAINT fk_publishers_issuer_id FOREIGN KEY(issuer_id) REFERENCES issuers (id),
	CONSTRAINT fk_publishers_principal_id FOREIGN KEY(principal_id) REFERENCES principals (id)
);
CREATE INDEX ix_publishers_namespace_name ON publishers (namespace, name);
CREATE INDEX ix_publishers_issuer_id ON publishers (issuer_id);
CREATE TABLE used_id_tokens (
	jti_sha256 VARCHAR NOT NULL,
	expires_at DATETIME NOT NULL,
	CONSTRAINT pk_used_id_tokens PRIMARY KEY (jti_sha256)
);
CREATE INDEX ix_used_id_tokens_expires_at ON used_id_tokens (expires_at);
CREATE TABLE webhooks (
	"by" VARCHAR NOT NULL,
	rights TEXT NOT NULL,
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	namespace VARCHAR NOT NULL,
	url TEXT NOT NULL,
	adapters VARCHAR NOT NULL,
	kinds TEXT NOT NULL,
	secret VARCHAR NOT NULL,
	old_secret VARCHAR,
	old_secret_until DATETIME,
	cursor INTEGER NOT NULL,
	failures INTEGER NOT NULL,
	created_at DATETIME NOT NULL,
	disabled_at DATETIME,
	disabled_reason VARCHAR
);
CREATE INDEX ix_webhooks_namespace ON webhooks (namespace);
CREATE TABLE webhook_deliveries (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	message VARCHAR NOT NULL,
	webhook_id INTEGER NOT NULL,
	event INTEGER,
	kind VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	created_at DATETIME NOT NULL,
	due_at DATETIME NOT NULL,
	attempts INTEGER NOT NULL,
	tried_at DATETIME,
	status INTEGER,
	error VARCHAR,
	milliseconds INTEGER,
	CONSTRAINT fk_webhook_deliveries_webhook_id FOREIGN KEY(webhook_id) REFERENCES webhooks (id),
	CONSTRAINT uq_webhook_deliveries_message UNIQUE (message)
);
CREATE INDEX ix_webhook_deliveries_due ON webhook_deliveries (webhook_id, due_at) WHERE state = 'pending';
CREATE INDEX ix_webhook_deliveries_webhook ON webhook_deliveries (webhook_id, id);
CREATE INDEX ix_webhook_deliveries_created_at ON webhook_deliveries (created_at);
CREATE TABLE policies (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	namespace VARCHAR,
	adapter_id INTEGER,
	alias VARCHAR NOT NULL,
	version INTEGER NOT NULL,
	text TEXT,
	set_at DATETIME NOT NULL,
	set_by VARCHAR NOT NULL,
	CONSTRAINT fk_policies_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id)
);
CREATE UNIQUE INDEX ix_policies_namespace ON policies (namespace, alias, version);
CREATE UNIQUE INDEX ix_policies_adapter ON policies (adapter_id, alias, version);
CREATE TABLE approvals (
	adapter_id INTEGER NOT NULL,
	alias VARCHAR NOT NULL,
	version_id INTEGER NOT NULL,
	generation INTEGER NOT NULL,
	approved_by VARCHAR NOT NULL,
	approved_at DATETIME NOT NULL,
	withdrawn_at DATETIME,
	CONSTRAINT pk_approvals PRIMARY KEY (adapter_id, alias, version_id, generation, approved_by),
	CONSTRAINT fk_approvals_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id),
	CONSTRAINT fk_approvals_version_id FOREIGN KEY(version_id) REFERENCES versions (id) ON DELETE CASCADE
);
CREATE TABLE promotions (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	adapter_id INTEGER NOT NULL,
	alias VARCHAR NOT NULL,
	generation INTEGER NOT NULL,
	record_digest VARCHAR NOT NULL,
	record TEXT NOT NULL,
	CONSTRAINT fk_promotions_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id)
);
CREATE INDEX ix_promotions_adapter ON promotions (adapter_id, id);
CREATE INDEX ix_promotions_alias ON promotions (adapter_id, alias, id);
CREATE TABLE external_users (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	issuer VARCHAR NOT NULL,
	subject VARCHAR NOT NULL,
	principal_id INTEGER NOT NULL,
	refresh_token VARCHAR,
	confirmed_at DATETIME,
	ended_at DATETIME,
	claimed_until DATETIME,
	created_at DATETIME NOT NULL,
	created_by VARCHAR NOT NULL,
	CONSTRAINT fk_external_users_principal_id FOREIGN KEY(principal_id) REFERENCES principals (id),
	CONSTRAINT uq_external_users_issuer_subject UNIQUE (issuer, subject)
);
CREATE INDEX ix_external_users_principal_id ON external_users (principal_id);
CREATE TABLE provider_groups (
	claim VARCHAR NOT NULL,
	group_id INTEGER NOT NULL,
	set_at DATETIME NOT NULL,
	set_by VARCHAR NOT NULL,
	CONSTRAINT pk_provider_groups PRIMARY KEY (claim),
	CONSTRAINT fk_provider_groups_group_id FOREIGN KEY(group_id) REFERENCES principal_groups (id)
);
CREATE INDEX ix_provider_groups_group_id ON provider_groups (group_id);
CREATE INDEX ix_tokens_external_id ON tokens (external_id);
CREATE TABLE device_sign_ins (
	device_sha256 VARCHAR NOT NULL,
	user_code VARCHAR NOT NULL,
	expires_at DATETIME NOT NULL,
	polled_at DATETIME,
	decided_at DATETIME,
	principal_id INTEGER,
	external_id INTEGER,
	token_until DATETIME, client_id VARCHAR DEFAULT '' NOT NULL,
	CONSTRAINT pk_device_sign_ins PRIMARY KEY (device_sha256),
	CONSTRAINT fk_device_sign_ins_principal_id FOREIGN KEY(principal_id) REFERENCES principals (id),
	CONSTRAINT fk_device_sign_ins_external_id FOREIGN KEY(external_id) REFERENCES external_users (id),
	CONSTRAINT uq_device_sign_ins_user_code UNIQUE (user_code)
);
CREATE INDEX ix_device_sign_ins_expires_at ON device_sign_ins (expires_at);
CREATE INDEX ix_versions_created_at ON versions (created_at, id);
CREATE INDEX ix_versions_rank ON versions (rank, id);
CREATE INDEX ix_versions_alpha ON versions (alpha, id);
CREATE INDEX ix_versions_size ON versions (size, id);
CREATE INDEX ix_versions_downloads ON versions (downloads, id);
CREATE INDEX ix_versions_findings ON versions (findings, id);
CREATE INDEX ix_metric_summaries_newest ON metric_summaries (metric, newest, version_id);
CREATE INDEX ix_metric_values_measured ON metric_values (task, metric, value, version_id, id) WHERE task IS NOT NULL AND withdrawn_at IS NULL;
CREATE INDEX ix_residents_loaded ON residents (version_id, worker_id) WHERE condition NOT IN ('failed', 'unloaded');
CREATE TABLE posted_files (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
	namespace VARCHAR NOT NULL,
	path TEXT NOT NULL,
	run VARCHAR NOT NULL,
	task VARCHAR,
	file_digest VARCHAR NOT NULL,
	git_id VARCHAR NOT NULL,
	size INTEGER NOT NULL,
	content BLOB,
	stored INTEGER NOT NULL,
	posted_at DATETIME NOT NULL,
	posted_by VARCHAR NOT NULL,
	model VARCHAR,
	adapter VARCHAR,
	revision VARCHAR,
	subject VARCHAR,
	reason TEXT
);
CREATE INDEX ix_posted_files_posted_at ON posted_files (posted_at);
CREATE INDEX ix_posted_files_run ON posted_files (namespace, posted_by, run);
CREATE INDEX ix_posted_files_namespace ON posted_files (namespace, id);
CREATE TABLE refresh_tokens (
	secret_sha256 VARCHAR NOT NULL,
	family VARCHAR NOT NULL,
	client_id VARCHAR NOT NULL,
	token_id INTEGER NOT NULL,
	created_at DATETIME NOT NULL,
	expires_at DATETIME NOT NULL,
	used_at DATETIME,
	retry_until DATETIME,
	token_until DATETIME,
	CONSTRAINT pk_refresh_tokens PRIMARY KEY (secret_sha256),
	CONSTRAINT fk_refresh_tokens_token_id FOREIGN KEY(token_id) REFERENCES tokens (id)
);
CREATE INDEX ix_refresh_tokens_family ON refresh_tokens (family);
CREATE INDEX ix_refresh_tokens_token_id ON refresh_tokens (token_id);
CREATE INDEX ix_refresh_tokens_expires_at ON refresh_tokens (expires_at);
CREATE TABLE weight_measurements (
	first VARCHAR NOT NULL,
	second VARCHAR NOT NULL,
	measurement INTEGER NOT NULL,
	figures BLOB NOT NULL,
	checksum VARCHAR NOT NULL,
	CONSTRAINT pk_weight_measurements PRIMARY KEY (first, second)
);
CREATE INDEX ix_weight_measurements_second ON weight_measurements (second);
CREATE INDEX ix_principals_kind ON principals (kind, name);
CREATE TABLE request_use (
	scope VARCHAR NOT NULL,
	name VARCHAR NOT NULL,
	idle_at FLOAT NOT NULL,
	cost FLOAT NOT NULL,
	CONSTRAINT pk_request_use PRIMARY KEY (scope, name)
);
CREATE TABLE pending_deletes (
	digest VARCHAR NOT NULL,
	since DATETIME NOT NULL,
	deleting_since DATETIME,
	CONSTRAINT pk_pending_deletes PRIMARY KEY (digest)
);
CREATE INDEX ix_pending_deletes_since ON pending_deletes (since);
CREATE TABLE index_updates (
	adapter_id INTEGER NOT NULL,
	below INTEGER NOT NULL,
	new_terms VARCHAR NOT NULL,
	CONSTRAINT pk_index_updates PRIMARY KEY (adapter_id),
	CONSTRAINT fk_index_updates_adapter_id FOREIGN KEY(adapter_id) REFERENCES adapters (id)
);
CREATE INDEX ix_approvals_version ON approvals (version_id);
CREATE INDEX ix_adapters_removal ON adapters (id) WHERE deleted_at IS NOT NULL AND version_count > 0;
