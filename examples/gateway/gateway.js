// Authorizes a request with the registry, by the request's own body and Authorization, before it goes to the engine.
// `auth_request` cannot do this: it sends no body, and the body names the model.
async function authorize(r) {
    const answer = await r.subrequest('/-/authorize', { method: 'POST' });
    if (answer.status === 200) {
        r.variables.principal = answer.headersOut['Adaptry-Principal'];
        r.internalRedirect('@engine');
        return;
    }
    // If the registry is unreachable, all requests are refused.
    const isDecision = answer.status >= 400 && answer.status < 500;
    r.headersOut['Content-Type'] = answer.headersOut['Content-Type'] || 'text/plain';
    r.return(isDecision ? answer.status : 503, isDecision ? answer.responseText : 'no decision');
}

export default { authorize };
