/* The mean ELBO and its gradients from plain C: nothing of Python is needed to compile this.
 *
 *     cc -O2 -shared -fPIC -I "$(python -c 'import fastelbo; print(fastelbo.get_include())')" \
 *         mean_elbo.c -o mean_elbo.so
 */

#include <math.h>

#include "fastelbo.h"

/* x is bytes (B, D); the rest float: mu and logvar (B, L), x_recon and its gradient (B, D) */
double mean_elbo(const fastelbo_api *api, const fastelbo_likelihood *likelihood, int64_t batch,
                 int64_t event, int64_t latent, const uint8_t *x, const float *mu,
                 const float *logvar, const float *x_recon, float *d_mu, float *d_logvar,
                 float *d_x_recon, int threads) {
    fastelbo_call call = {
        .batch = batch, .event = event, .latent = latent, .threads = threads,
        .dtype = FASTELBO_FLOAT32, .x_dtype = FASTELBO_UINT8,
        .x = x, .outputs = {x_recon}, .mu = mu, .logvar = logvar,
        .weight = 1.0 / (double)batch, .kl_weight = -1.0 / (double)batch,
        .d_outputs = {d_x_recon}, .d_mu = d_mu, .d_logvar = d_logvar,
    };
    if (api->elbo(likelihood, &call) != 0 || call.outside) {
        return -INFINITY;
    }
    return (call.log_prob - call.kl) / (double)batch;
}
